"""The figures of "On-Policy Maximum Entropy Deep RL": panels by an option or by algorithm, and bars at chosen steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.reports.bars import draw_bars, make_bars
from lit_mbrl.reports.runs import group_runs, read_run
from lit_mbrl.reports.statistics import interval
from tests.unit.app.commands.test_plot import make_run

FRUITBOT = "procgen/fruitbot-easy"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command draws, instead of its files."""
    drawn: list[Any] = []
    monkeypatch.setattr("lit_mbrl.app.commands.plot.save", lambda figure, out: drawn.append(figure) or [out])
    return drawn


def levels(folder: Path) -> None:
    """Figure 3's runs: two agents on four numbers of levels."""
    for count in (50, 100, 250, 500):
        env = {"env": {"name": FRUITBOT, "kwargs": {"num_levels": count}}}
        for i, algorithm in enumerate(("PPO", "MaxEntPPO")):
            rows = f"step,train/return\n100,{count + i}\n200,{2 * count + i}\n"
            make_run(folder / f"{algorithm}{count}", rows, 0, algorithm, data=env)


def test_a_panel_per_number_of_levels(tmp_path: Path, figures: list[Any], capfd: pytest.CaptureFixture) -> None:
    levels(tmp_path / "runs")
    panels = "--panels=data.env.kwargs.num_levels"
    assert main(["plot", str(tmp_path / "runs"), "--metric=train/return", panels, f"--out={tmp_path / 'c'}"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and len(out.splitlines()) == 2 + 8 + 2
    axes = figures[0].axes
    assert [panel.get_title() for panel in axes] == [f"{FRUITBOT}, num_levels={n}" for n in (50, 100, 250, 500)]
    for count, panel in zip((50, 100, 250, 500), axes, strict=True):
        assert [text.get_text() for text in panel.get_legend().get_texts()] == ["MaxEntPPO (n=1)", "PPO (n=1)"]
        np.testing.assert_array_equal(panel.get_lines()[0].get_ydata(), [count + 1, 2 * count + 1])


def test_a_panel_per_algorithm(tmp_path: Path, figures: list[Any]) -> None:
    """Figure 2: coefficients of the one and of the other."""
    for algorithm, option in (("EntropyBonusPPO", "bonus_coeff"), ("MaxEntPPO", "entropy_coeff")):
        for value in (0.01, 0.3):
            rows = "step,train/return\n100,1.0\n200,2.0\n"
            make_run(tmp_path / f"runs/{algorithm}{value}", rows, 0, algorithm, FRUITBOT, **{option: value})
    assert main(["plot", str(tmp_path / "runs"), "--metric=train/return", "--panels=algorithm"]) == 0
    bonus, reward = figures[0].axes
    assert (bonus.get_title(), reward.get_title()) == (f"{FRUITBOT}, EntropyBonusPPO", f"{FRUITBOT}, MaxEntPPO")
    assert [text.get_text() for text in reward.get_legend().get_texts()] == [
        f"MaxEntPPO entropy_coeff={value} (n=1)" for value in (0.01, 0.3)
    ]


# ---------------------------------------------------------------------- bars
def evaluations(*values: float, std: float = 2.0, every: int = 100) -> str:
    rows = [f"{every * i},{value},{std + i}\n" for i, value in enumerate(values, 1)]
    return "step,eval/return,eval/return_std\n" + "".join(rows)


def test_bars_are_the_values_closest_to_their_steps(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"{i}", evaluations(1, 2 + i, 4 + i), i) for i in range(3)]
    folders.append(make_run(tmp_path / "3", evaluations(7), 3))
    ((group,), _) = group_runs([read_run(folder) for folder in folders])
    notes: list[str] = []
    first, last = make_bars(group, "eval/return", [90, 310], "mean", notes.append)
    assert (first.seeds, first.env_steps, float(first.value.value)) == (4, 90, (1 + 1 + 1 + 7) / 4)
    assert (last.seeds, float(last.value.value)) == (3, 5.0)  # 300 is close enough to 310
    assert last.value.interval == interval(np.array([4.0, 5.0, 6.0]), "mean")
    assert notes == [f"left out at 310: {folders[3]} has eval/return up to 100 only"]
    assert make_bars(group, "eval/return", [316], "mean", notes.append) == []


def test_a_single_seed_has_the_spread_of_its_episodes(tmp_path: Path) -> None:
    ((group,), _) = group_runs([read_run(make_run(tmp_path / "0", evaluations(1, 5)))])
    (bar,) = make_bars(group, "eval/return", [200], "mean", pytest.fail)
    assert bar.value.interval is None and bar.std == 4.0
    (panel,) = draw_bars([bar], "eval/return", "mean").axes
    (shown,) = panel.patches
    assert shown.get_height() == 5.0
    (line,) = panel.containers[1].lines[2]
    assert line.get_segments()[0][:, 1].tolist() == [1.0, 9.0]


def test_command_draws_bars(tmp_path: Path, figures: list[Any], capfd: pytest.CaptureFixture) -> None:
    """Figure 4: the test results at 1 and at 2 million steps."""
    for i, algorithm in enumerate(("PPO", "EntropyBonusPPO", "MaxEntPPO")):
        rows = evaluations(1 + i, 11 + i, every=1_000_000)
        make_run(tmp_path / f"runs/{algorithm}", rows, 0, algorithm, FRUITBOT)
    assert main(["plot", str(tmp_path / "runs"), "--at=1000000,2000000", f"--out={tmp_path / 'c'}"]) == 0
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("1,000,000 steps", "2,000,000 steps")
    ticks = [label.get_text().split() for label in first.get_xticklabels()]
    assert ticks == [["EntropyBonusPPO", "2.0"], ["MaxEntPPO", "3.0"], ["PPO", "1.0"]]
    assert [patch.get_height() for patch in second.patches] == [12, 13, 11]
    colours = [[patch.get_facecolor() for patch in panel.patches] for panel in (first, second)]
    assert colours[0] == colours[1] and len(set(colours[0])) == 3
    out = capfd.readouterr().out.splitlines()
    assert len(out) == 2 + 6 + 2 and out[2].split() == ["EntropyBonusPPO", FRUITBOT, "1", "1,000,000", "2.000", "-"]


def test_bars_are_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", evaluations(1, 2))
    assert main(["plot", str(folder), "--at=200", f"--out={tmp_path / 'bars'}"]) == 0
    assert (tmp_path / "bars.png").stat().st_size > 5_000 and (tmp_path / "bars.svg").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--panels=data.env.kwargs.num_level",
            "--panels=data.env.kwargs.num_level: expected task, algorithm or ",
        ),
        ("--at=x", "--at=x: expected an integer > 0"),
        ("--at=100,100", "--at=100,100: expected environment steps that differ"),
        ("--at=900", "--at=900: expected environment steps that a run has reached"),
    ],
)
def test_mistakes(argument: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path / "run", evaluations(1, 2))
    assert main(["plot", str(folder), argument]) == 2
    assert line in capfd.readouterr().err.splitlines()[-1]


def test_bars_have_no_other_axis(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path / "run", evaluations(1, 2))
    assert main(["plot", str(folder), "--at=200", "--x=eval/return_std"]) == 2
    assert "--x=eval/return_std: expected no other axis with --at" in capfd.readouterr().err
