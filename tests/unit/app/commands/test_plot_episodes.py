"""`plot --band episodes`: the interval over the episodes of evaluations, agents by environments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from lit_mbrl.app.cli import main
from lit_mbrl.reports.curves import make_curve
from lit_mbrl.reports.runs import group_runs, read_run
from lit_mbrl.reports.statistics import episodes_interval
from tests.unit.app.commands.test_plot import make_run

EPISODES = 10


def evaluations(returns: np.ndarray, every: int = 100) -> str:
    """A table of evaluations; returns of episodes `[T, EPISODES]`."""
    rows = [f"{every * (i + 1)},{float(row.mean())!r},{float(row.std())!r}\n" for i, row in enumerate(returns)]
    return "step,eval/return,eval/return_std\n" + "".join(rows)


def returns(seed: int, evaluations: int = 4, level: float = 100.0) -> np.ndarray:
    return level + 20 * np.random.default_rng(seed).normal(size=(evaluations, EPISODES))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's interval of the mean of all values, by scipy."""
    flat = values.reshape(-1)
    return scipy.stats.t.interval(0.95, len(flat) - 1, flat.mean(), scipy.stats.sem(flat))


@pytest.mark.parametrize("runs", [1, 3])
def test_the_interval_is_student_s_of_all_episodes(runs: int) -> None:
    values = np.stack([returns(seed) for seed in range(runs)])  # [n, T, episodes]
    low, high = episodes_interval(values.mean(-1), values.std(-1), EPISODES)
    for t in range(4):
        assert (low[t], high[t]) == pytest.approx(t_interval(values[:, t]))


def test_a_single_episode_has_no_interval() -> None:
    assert episodes_interval(np.array([[3.0]]), np.array([[0.0]]), 1) is None


def test_a_curve_of_one_seed_has_a_band_and_a_final_interval(tmp_path: Path) -> None:
    seen = returns(0)
    folder = make_run(tmp_path / "a", evaluations(seen), data={"eval_episodes": EPISODES})
    (group,), _ = group_runs([read_run(folder)])
    curve = make_curve(group, "eval/return", "step", "mean", "episodes")
    assert curve.y.interval is not None and curve.final.interval is not None
    np.testing.assert_allclose(curve.y.value, seen.mean(1))
    for t in range(4):
        assert (curve.y.interval[0][t], curve.y.interval[1][t]) == pytest.approx(t_interval(seen[t]))
    assert tuple(map(float, curve.final.interval)) == pytest.approx(t_interval(seen[3]))
    assert make_curve(group, "eval/return", "step", "mean").y.interval is None  # over seeds there is none


def test_four_agents_on_four_environments(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Figure 3 of the maximum-entropy Dreamer document: a square of panels with a line per agent."""
    for i, task in enumerate(("Walker2D", "Hopper", "Ant", "HalfCheetah")):
        for j, agent in enumerate(("Dreamer", "RevisedDreamer", "MaxEntDreamer", "MaxEntExploration")):
            make_run(
                tmp_path / "runs" / f"{task}-{agent}",
                evaluations(returns(4 * i + j, 30, level=100.0 * j)),
                algorithm=agent,
                task=f"{task}BulletEnv-v0",
                data={"eval_episodes": EPISODES},
            )
    out = tmp_path / "figure_3"
    assert main(["plot", str(tmp_path / "runs"), "--band=episodes", f"--out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("BulletEnv-v0" in line and "[" in line for line in lines) == 16
    assert out.with_suffix(".png").is_file() and out.with_suffix(".svg").is_file()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--band=runs"], "--band=runs: expected seeds or episodes"),
        (
            ["--band=episodes", "--metric=loss/critic"],
            "--metric=loss/critic: expected eval/return with --band=episodes",
        ),
        (["--band=episodes", "--estimate=iqm"], "--estimate=iqm: expected mean with --band=episodes"),
        (["--band=episodes"], "--band=episodes: expected a column of metrics.csv, but no run has eval/return_std"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a", "step,eval/return,loss/critic\n100,1.0,2.0\n")
    assert main(["plot", "a", *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
