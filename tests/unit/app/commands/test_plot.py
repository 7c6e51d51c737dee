"""Learning curves: statistics against closed forms, grouping, the picture's lines, the table, mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from matplotlib.colors import to_hex

from lit_mbrl.app.cli import CONF, main
from lit_mbrl.reports.curves import make_curve
from lit_mbrl.reports.figure import draw, save
from lit_mbrl.reports.runs import find_runs, group_runs, natural, read_run
from lit_mbrl.reports.statistics import estimate, interval
from lit_mbrl.reports.table import numbers, table
from lit_mbrl.utils.errors import UsageError


def make_run(
    folder: Path,
    rows: str,
    seed: Any = 0,
    algorithm: str = "SACSVG",
    task: str = "Pendulum-v1",
    data: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A run folder as `fit` leaves it, as far as `plot` reads it."""
    folder.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "trainer": {
            "precision": None,
            "callbacks": [{"class_path": "lit_mbrl.callbacks.SoftTargetUpdate", "init_args": {}}],
        },
        "model": {"class_path": f"lit_mbrl.algorithms.{algorithm}", "init_args": {"gamma": 0.99, **options}},
        "data": {"class_path": "lit_mbrl.data.OffPolicy", "init_args": {"env": {"name": task}, **(data or {})}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(rows)
    return folder


def evaluations(*values: float, every: int = 100) -> str:
    """A table with an evaluation every so many steps, one round per step, half a second per round."""
    rows = [f"{every * i},{value},{every * i / 2},\n" for i, value in enumerate(values, 1)]
    return "step,eval/return,time/seconds,loss/critic\n50,,25.0,1.0\n" + "".join(rows)


def curves(*folders: Path, axis: str = "step", kind: str = "mean") -> list[Any]:
    groups, left_out = group_runs([read_run(folder) for folder in folders])
    assert left_out == []
    return [make_curve(group, "eval/return", axis, kind) for group in groups]


# ---------------------------------------------------------------------- statistics
def test_iqm_is_the_mean_of_the_middle_half() -> None:
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 6.0])
    assert estimate(values, "iqm") == np.mean([2.0, 3.0, 4.0, 5.0])
    assert estimate(values, "mean") == values.mean()
    assert estimate(values[:3], "iqm") == values[:3].mean()  # nothing to leave out


def test_interval_of_two_values_is_known() -> None:
    # Half of the resamples are (0, 1) or (1, 0); a quarter is (0, 0), a quarter (1, 1): more than 2.5 % at each end.
    low, high = interval(np.array([0.0, 1.0]), "mean")
    assert (low, high) == (0.0, 1.0)


def test_interval_is_that_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval(values, "mean")
    half = scipy.stats.norm.ppf(0.975) * values.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.05 * half)


def test_interval_of_a_curve_is_that_of_each_point() -> None:
    values = np.random.default_rng(2).normal(size=(7, 3))
    for kind in ("mean", "iqm"):
        low, high = interval(values, kind)
        for t in range(3):
            assert (low[t], high[t]) == interval(values[:, t], kind)
    assert interval(values[:1], "mean") is None


# ---------------------------------------------------------------------- runs
def test_runs_are_found_by_folder_parent_and_pattern_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_run(tmp_path / "runs/a/seed0", evaluations(1))
    second = make_run(tmp_path / "runs/b/seed0", evaluations(1))
    (tmp_path / "runs/other").mkdir()
    (tmp_path / "runs/other/metrics.csv").write_text("a\n1\n")  # another logger's
    monkeypatch.chdir(tmp_path)
    assert [folder.resolve() for folder in find_runs(["runs"])] == [first, second]
    assert [folder.resolve() for folder in find_runs(["runs/*/seed0", "runs/a", str(second)])] == [first, second]


def test_groups_are_named_by_the_options_that_differ(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "a", evaluations(1), 0, horizon=2, data={"total_frames": 5}),
        make_run(tmp_path / "b", evaluations(1), 1, horizon=2, data={"total_frames": 6}),
        make_run(tmp_path / "c", evaluations(1), 0, horizon=10),
        make_run(tmp_path / "d", evaluations(1), 0, algorithm="SAC"),
        make_run(tmp_path / "e", evaluations(1), 0, task="Swimmer-v5", horizon=2, hidden_sizes=[64, 64]),
        make_run(tmp_path / "f", evaluations(1), True, task="Swimmer-v5", horizon=2, hidden_sizes=[64, 64]),
    ]
    groups, left_out = group_runs([read_run(folder) for folder in folders])
    assert left_out == []
    assert [(group.task, group.label, len(group.runs)) for group in groups] == [
        ("Pendulum-v1", "SAC", 1),
        ("Pendulum-v1", "SACSVG horizon=2", 2),
        ("Pendulum-v1", "SACSVG horizon=10", 1),
        ("Swimmer-v5", "SACSVG horizon=2", 2),  # its sizes differ from the other task's only
    ]


def test_an_option_with_the_same_last_name_keeps_its_whole_name(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "a", evaluations(1), size=1, data={"size": 1}),
        make_run(tmp_path / "b", evaluations(1), size=2, data={"size": 2}),
    ]
    groups, _ = group_runs([read_run(folder) for folder in folders])
    assert [group.label for group in groups] == ["SACSVG data.size=1 model.size=1", "SACSVG data.size=2 model.size=2"]


def test_of_two_runs_with_one_seed_the_longer_counts(tmp_path: Path) -> None:
    short = read_run(make_run(tmp_path / "short", evaluations(1), 3))
    long = read_run(make_run(tmp_path / "long", evaluations(1, 2), 3))
    for order in ([short, long], [long, short]):
        (group,), left_out = group_runs(order)
        assert (group.runs, left_out) == ([long], [short])


def test_half_a_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", evaluations(1, 2) + "300,3"))
    assert run.series("eval/return")[0].tolist() == [100, 200]


def test_natural_order() -> None:
    assert sorted(["h=10", "h=2", "g"], key=natural) == ["g", "h=2", "h=10"]


# ---------------------------------------------------------------------- curves
def test_curve_of_runs_with_the_same_points_is_their_estimate(tmp_path: Path) -> None:
    values = np.array([[1.0, 4.0, 9.0], [3.0, 4.0, 1.0], [5.0, 4.0, 2.0]])
    (curve,) = curves(*[make_run(tmp_path / str(i), evaluations(*row), i) for i, row in enumerate(values)])
    np.testing.assert_array_equal(curve.x, [100, 200, 300])
    np.testing.assert_allclose(curve.y.value, values.mean(0))
    np.testing.assert_array_equal(curve.y.interval, interval(values, "mean"))
    assert (curve.seeds, curve.env_steps, curve.final.value) == (3, 300, 4.0)
    assert curve.final.interval == interval(values[:, -1], "mean")


def test_other_points_are_interpolated_as_far_as_all_have_come(tmp_path: Path) -> None:
    first = make_run(tmp_path / "0", evaluations(0, 10, 20, 30), 0)  # 100, ..., 400
    second = make_run(tmp_path / "1", evaluations(5, 5, every=150), 1)  # 150, 300
    (curve,) = curves(first, second)
    np.testing.assert_array_equal(curve.x, [150, 200, 300])
    np.testing.assert_allclose(curve.y.value, [(5 + 5) / 2, (10 + 5) / 2, (20 + 5) / 2])
    assert curve.env_steps == 300 and curve.final.value == (20 + 5) / 2


def test_axis_of_a_row_without_one_comes_from_the_rows_around_it(tmp_path: Path) -> None:
    rows = "step,eval/return,time/seconds\n0,,0.0\n100,7.0,\n200,,50.0\n300,8.0,70.0\n"
    (curve,) = curves(make_run(tmp_path / "0", rows), axis="time/seconds")
    np.testing.assert_allclose(curve.x, [25.0, 70.0])
    np.testing.assert_allclose(curve.y.value, [7.0, 8.0])
    assert curve.y.interval is None


def test_final_is_the_mean_over_the_last_tenth(tmp_path: Path) -> None:
    (curve,) = curves(make_run(tmp_path / "0", evaluations(*range(1, 31))))
    assert curve.final.value == np.mean([28, 29, 30])


def test_a_long_run_is_thinned_but_keeps_its_ends(tmp_path: Path) -> None:
    (curve,) = curves(make_run(tmp_path / "0", evaluations(*range(5000))))
    assert len(curve.x) == 400 and (curve.x[0], curve.x[-1]) == (100, 500_000)
    np.testing.assert_allclose(curve.y.value, curve.x / 100 - 1)


def test_runs_without_a_common_range(tmp_path: Path) -> None:
    first = make_run(tmp_path / "0", evaluations(1), 0)
    second = make_run(tmp_path / "1", evaluations(1, every=200), 1)
    with pytest.raises(UsageError, match="SACSVG on Pendulum-v1: its runs have no range of step in common"):
        curves(first, second)


# ---------------------------------------------------------------------- picture
def test_picture_has_every_curve_and_its_band(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"svg{i}", evaluations(1 + i, 2 + i, 3 + i), i, horizon=2) for i in range(3)]
    folders.append(make_run(tmp_path / "one", evaluations(0, 0, 0), 0, horizon=0))
    folders.append(make_run(tmp_path / "other", evaluations(5, 6), 0, task="poplin/Hopper", horizon=0))
    figure = draw({"time/seconds": curves(*folders, axis="time/seconds")}, "eval/return", "mean")
    pendulum, hopper = figure.axes
    assert (pendulum.get_title(), hopper.get_title()) == ("Pendulum-v1", "poplin/Hopper")
    assert pendulum.get_xlabel() == "training time [min]" and pendulum.get_ylabel() == "evaluation return"
    zero, two = pendulum.get_lines()
    legend = [text.get_text() for text in pendulum.get_legend().get_texts()]
    assert legend == ["SACSVG horizon=0 (n=1)", "SACSVG horizon=2 (n=3)"]
    np.testing.assert_allclose(two.get_xdata(), np.array([50, 100, 150]) / 60)
    np.testing.assert_allclose(two.get_ydata(), [2, 3, 4])
    (band,) = pendulum.collections  # a single seed has none
    assert to_hex(band.get_facecolor()[0]) == to_hex(two.get_color()) != to_hex(zero.get_color())
    extent = band.get_datalim(pendulum.transData)
    assert (extent.y0, extent.y1) == pytest.approx((1.0, 5.0))
    (same,) = hopper.get_lines()
    assert same.get_color() == zero.get_color() != two.get_color()


def test_each_seed_is_a_thin_line(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"svg{i}", evaluations(1 + i, 2 + i, 3 - i), i, horizon=2) for i in range(3)]
    folders.append(make_run(tmp_path / "one", evaluations(0, 0, 0), 0, horizon=0))
    drawn = {"step": curves(*folders)}
    (panel,) = draw(drawn, "eval/return", "mean", each=True).axes
    one, mean, *each = panel.get_lines()  # a single seed is its own mean
    np.testing.assert_array_equal(one.get_ydata(), [0, 0, 0])
    np.testing.assert_array_equal(mean.get_ydata(), [2, 3, 2])
    assert [list(line.get_ydata()) for line in each] == [[1, 2, 3], [2, 3, 2], [3, 4, 1]]
    assert all(line.get_linewidth() < mean.get_linewidth() and line.get_color() == mean.get_color() for line in each)
    assert len(panel.get_legend().get_texts()) == 2
    (plain,) = draw(drawn, "eval/return", "mean").axes
    assert len(plain.get_lines()) == 2
    notes = [draw(drawn, "eval/return", "mean", each=each).texts[0].get_text() for each in (False, True)]
    assert notes[1] == f"{notes[0]}; thin lines: the seeds"


def clocks(*values: float, updates: int, rollouts: int | None = None) -> str:
    """A table with an evaluation every 100 steps, and the clocks of MEMR's figure 2."""
    rows = [
        f"{100 * i},{value},{100 * i * updates},{'' if rollouts is None else 100 * i * rollouts}\n"
        for i, value in enumerate(values, 1)
    ]
    return "step,eval/return,time/policy_updates,time/model_rollouts\n" + "".join(rows)


def figure_2(folder: Path, *tasks: str) -> None:
    for task in tasks:
        for seed in range(2):
            name = f"{task}{seed}"
            make_run(folder / f"sac/{name}", clocks(1, 2, 3 + seed, updates=1), seed, "SAC", task)
            make_run(folder / f"mbpo/{name}", clocks(3, 6, 9, updates=20, rollouts=400), seed, "MBPO", task)
            make_run(folder / f"memr/{name}", clocks(3, 5, 9, updates=5, rollouts=100), seed, "MEMR", task)


@pytest.mark.parametrize("tasks", [["Hopper"], ["Ant", "Hopper"]])
def test_several_axes_show_the_same_runs(
    tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr("lit_mbrl.app.commands.plot.save", lambda figure, out: figures.append(figure) or [out])
    figure_2(tmp_path / "runs", *tasks)
    axes = "env_steps,policy_updates,model_rollouts"
    assert main(["plot", str(tmp_path / "runs"), "--x", axes, f"--out={tmp_path / 'c'}"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and len(out.splitlines()) == 2 + 3 * len(tasks) + 2
    (figure,) = figures
    panels = figure.axes
    assert len(panels) == 3 * len(tasks)
    names = [panel.get_xlabel() for panel in panels]
    expected = ["environment steps", "policy updates", "model rollouts"]
    assert names == [name for name in expected for _ in tasks]  # a row per axis, unless there is only one task
    assert [panel.get_title() for panel in panels[: len(tasks)]] == tasks
    colours: dict[str, set[str]] = {}
    for panel, name in zip(panels, names, strict=True):
        legend = [text.get_text() for text in panel.get_legend().get_texts()]
        own = ["MBPO (n=2)", "MEMR (n=2)"] + ([] if name == "model rollouts" else ["SAC (n=2)"])
        assert legend == own
        for line, label in zip(panel.get_lines(), legend, strict=True):
            colours.setdefault(label, set()).add(to_hex(line.get_color()))
    assert all(len(found) == 1 for found in colours.values()) and len(set.union(*colours.values())) == 3
    mbpo = panels[len(tasks)].get_lines()[0]
    np.testing.assert_array_equal(mbpo.get_xdata(), [2000, 4000, 6000])
    np.testing.assert_array_equal(mbpo.get_ydata(), [3, 6, 9])


def test_an_axis_named_twice(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    figure_2(tmp_path / "runs", "Hopper")
    assert main(["plot", str(tmp_path / "runs"), "--x=env_steps,step"]) == 2
    assert "--x=env_steps,step: expected axes that differ" in capfd.readouterr().err


def test_equal_curves_give_equal_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", evaluations(1, 2))
    for name in ("x", "y"):
        save(draw({"step": curves(folder)}, "eval/return", "iqm"), tmp_path / name)
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        content = (tmp_path / f"x.{kind}").read_bytes()
        assert content.startswith(start) and content == (tmp_path / f"y.{kind}").read_bytes()


# ---------------------------------------------------------------------- table and command
def test_table_and_numbers() -> None:
    assert table([("a", "bb"), ("ccc", "1")], right=(1,)) == "a    bb\n---  --\nccc   1"
    assert numbers(-0.54, 244.7) == ["-0.5", "244.7"]
    assert numbers(0.54, 2.0) == ["0.540", "2.000"]
    assert numbers(0.00123, 0.0) == ["0.00123", "0"]


def test_command_draws_and_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        make_run(tmp_path / f"runs/seed{i}", evaluations(1.0, 20.0 + 2 * i), i)
    make_run(tmp_path / "runs/begun", "step,loss/critic\n50,1.0\n", 2)
    make_run(tmp_path / "runs/again", evaluations(1.0), 0)
    make_run(tmp_path / "runs/broken", evaluations(1.0, float("nan")), 0, algorithm="SAC")
    assert main(["plot", "runs", "--out", "pictures/all.png", "--x=seconds"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "algorithm  task         seeds  env steps  eval/return (mean)  95 % interval",
        "---------  -----------  -----  ---------  ------------------  -------------",
        "SAC        Pendulum-v1      1        100               1.000              -",
        "SACSVG     Pendulum-v1      2        200                21.0   [20.0, 22.0]",
        "",
        "written: pictures/all.png, pictures/all.svg",
    ]
    assert err.splitlines() == [
        "left out: runs/begun has no eval/return yet",
        "runs/broken: eval/return is not a finite number in 1 of 2 rows, which are left out",
        "left out: runs/again with 100 env steps, since runs/seed0, with the same seed and options, has 200",
    ]
    assert (tmp_path / "pictures/all.png").stat().st_size > 10_000
    assert (tmp_path / "pictures/all.svg").stat().st_size > 10_000


def test_what_is_left_out_is_said_truly(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", evaluations(1.0, 2.0, 3.0), 0)
    make_run(tmp_path / "runs/b", evaluations(4.0, 5.0, 6.0), 0)  # as long as the first
    make_run(tmp_path / "runs/c", evaluations(7.0), 1)
    assert main(["plot", "runs", "--out", "curves"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        "left out: runs/a with 300 env steps, since runs/b, with the same seed and options, has as many",
        "SACSVG on Pendulum-v1 ends at 100 with runs/c: what 1 of its 2 runs have after it is left out",
    ]


@pytest.mark.parametrize("out", ["/proc/x", "/proc/nowhere/x", "x" * 300])
def test_a_picture_that_cannot_be_written_is_one_line(out: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path / "a", evaluations(1, 2))
    assert main(["plot", str(folder), f"--out={out}"]) == 2
    err = capfd.readouterr().err
    assert "expected a name in a folder that can be written to (" in err and err.count("\n") == 1


@pytest.mark.parametrize("config", ["a: &a [*a]\n", "model: 3\n", "model:\n- x\n", "[" * 3000, "\x00"])
def test_a_damaged_config_is_one_line(config: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path / "a", evaluations(1, 2))
    (folder / "config.yaml").write_text(config)
    assert main(["plot", str(folder), f"--out={tmp_path / 'c'}"]) == 2
    err = capfd.readouterr().err
    assert "expected the config.yaml of a run" in err and err.count("\n") == 1


def test_plot_needs_no_torch(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", evaluations(1, 2))
    code = (
        f"import sys; sys.path.insert(0, {str(CONF.parent)!r}); from lit_mbrl.app.cli import main; "
        f"assert main(['plot', {str(folder)!r}, '--out', {str(tmp_path / 'c')!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "RUN: expected run folders, folders with runs below them, or patterns such as 'runs/*'"),
        (["nowhere*"], "nowhere*: expected a run folder, a folder of runs or a pattern; no metrics.csv is there"),
        (["bare"], "bare: expected a run folder with metrics.csv and config.yaml (No such file or directory)"),
        (["strange"], "strange/config.yaml: expected the config.yaml of a run, with model and data.env.name"),
        (["torn"], "torn/metrics.csv: expected the metrics.csv of a run, with a column step and numbers"),
        (["run", "--metric=eval/retrun"], "--metric=eval/retrun: expected a column of metrics.csv, but no run has"),
        (
            ["run", "--x=train_steps"],
            "--x=train_steps: expected a column of metrics.csv, but no run has time/train_steps",
        ),
        (["run", "--x=eval/return"], "--x=eval/return: expected a column that grows, but in run it does not"),
        (
            ["run", "--metric=loss/critic", "--x=eval/return"],
            "run: its rows with loss/critic lie outside of those",
        ),
        (["run", "--each", "--at=100"], "--each: expected curves, not bars (--at)"),
        (["run", "--estimate=median"], "--estimate=median: expected mean or iqm"),
        (["run", "--metrics=a"], "--metrics=a: no such option (did you mean '--metric'?)"),
        (["run", "--out"], "--out: expected a value"),
        (["run", "--out=run"], "--out=run: expected the name of a file, without its ending"),
        (
            ["run", "--out=run/config.yaml/x"],
            "--out=run/config.yaml/x: expected a name in a folder that can be",
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", evaluations(3, 2, 1))
    make_run(tmp_path / "bare", evaluations(1)).joinpath("config.yaml").unlink()
    make_run(tmp_path / "strange", evaluations(1)).joinpath("config.yaml").write_text("model: 3\n")
    make_run(tmp_path / "torn", "step,eval/return\n100,abc\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(["plot", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {line}"), err
    assert sorted(tmp_path.rglob("*")) == before
