"""The command with real runs: listed, planned, interrupted, repeated, failing; and every mistake in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import main
from lit_mbrl.app.commands.paper import cost
from lit_mbrl.app.commands.paper.plan import choose_budget, plan
from lit_mbrl.app.commands.paper.progress import Progress, is_finished
from lit_mbrl.papers.index import ARTEFACTS
from lit_mbrl.utils.pool import Pool
from tests.unit.app.commands.test_plot import evaluations, make_run

ROOT = Path(__file__).parents[5]
WORDS = ["paper", "lecture/dyna_q", "--budget=smoke", "--variants=n_0,n_5", "--seeds=10"]


def files(folder: Path) -> dict[str, bytes]:
    """Contents of a folder's files by their names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two finished runs, of which the launcher was killed during the first. Copy it to change it."""
    folder = tmp_path_factory.mktemp("paper")
    command = [sys.executable, "-m", "lit_mbrl", *WORDS, "--jobs=1", f"--out={folder}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(folder.rglob("metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    while subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.DEVNULL).returncode == 0:
        time.sleep(0.1)  # the run is a session of its own, and goes on to its end
    assert main([*WORDS, f"--out={folder}"]) == 0
    return folder


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that would be started; none is."""
    names: list[str] = []

    def run(pool: Pool, jobs: Any) -> Any:
        names.extend(job.name for job in jobs)
        return iter(())

    monkeypatch.setattr(Pool, "run", run)
    return names


def test_a_killed_launcher_goes_on_and_the_report_is_repeated_bit_for_bit(
    finished: Path, tmp_path: Path, no_runs: list[str], capfd: pytest.CaptureFixture
) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    report = copy / "report" / "lecture" / "dyna_q" / "smoke"
    before = files(report)
    assert {"index.html", "figure.png", "results.json", "table.tex"} <= before.keys()
    shutil.rmtree(report)
    assert main([*WORDS, f"--out={copy}"]) == 0
    said = capfd.readouterr()
    assert no_runs == [] and "all runs are finished" in said.out and "n = 5" in said.out
    assert "n = 0" in said.out and "left out" not in said.err
    assert files(report) == before


def test_other_options_make_other_runs_and_leave_the_old_ones(
    finished: Path, tmp_path: Path, no_runs: list[str]
) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = files(copy / "runs")
    assert main([*WORDS, f"--out={copy}", "--", "--model.learning_rate=0.3"]) == 0
    assert no_runs == ["maze n_0 seed 10", "maze n_5 seed 10"]
    after = files(copy / "runs")
    assert {name: after[name] for name in before} == before and len(after) > len(before)


def test_a_run_that_another_process_has_is_left_to_it(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    artefact = ARTEFACTS["lecture/dyna_q"]
    mine, other, made = plan(artefact, choose_budget(artefact, "smoke"), tmp_path, [])[:3]
    lock = other.hold()
    assert lock is not None and other.hold() is None
    make_run(made.folder, evaluations(1.0), data={"total_frames": 100})  # since the plan was made
    progress = Progress([other, made, mine], 0, 1, {})
    with Pool(1) as pool:
        for ended in pool.run(progress.jobs()):
            assert mine.hold() is None  # until it has been added
            progress.add(ended, False)
    assert progress.elsewhere == [other.name] and progress.done == 2 and not progress.failed
    assert not other.folder.exists() and is_finished(mine)
    again = mine.hold()
    assert again is not None
    again.close()
    lock.close()


def test_a_sweep_has_a_trial_for_every_run(work: Path, capfd: pytest.CaptureFixture, no_runs: list[str]) -> None:
    assert main(["paper", "sac_svg/table_2", "--launcher=wandb", "--seeds=10-11", "--", "--num_threads=1"]) == 0
    printed = capfd.readouterr().out
    path = Path("runs/paper/sweeps/sac_svg-table_2-laptop.yaml")
    assert f"wandb sweep {path}" in printed and "sac_svg/table_2 --budget=laptop --seeds=10-11 -- --num" in printed
    sweep = yaml.safe_load(path.read_text())
    assert sweep["parameters"]["variants"] == {"values": ["sac", "svg_2"]} and no_runs == []
    assert sweep["metric"] == {"name": "eval/return", "goal": "maximize"}
    # A trial's command makes one run, the one of its values, and no report.
    arguments = ["--seeds=11", "--tasks=swimmer", "--variants=svg_2"]
    words = [word for part in sweep["command"][4:] for word in (arguments if part == "${args}" else [part])]
    assert main(words) == 0
    assert no_runs == ["swimmer svg_2 seed 11"] and not Path("runs/paper/report").exists()


def test_runs_in_a_trial_of_a_sweep_are_logged_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = ARTEFACTS["lecture/dyna_q"]
    alone = plan(artefact, choose_budget(artefact, "smoke"), tmp_path, [])[0]
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep0")
    trial = plan(artefact, choose_budget(artefact, "smoke"), tmp_path, [])[0]
    assert "--trainer.logger=false" in alone.command(False)
    assert "--trainer.logger=lit_mbrl.app.loggers.WandbLogger" in trial.command(False)
    assert (trial.folder, trial.fingerprint) == (alone.folder, alone.fingerprint)


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    artefact = ARTEFACTS["lecture/dyna_q"]
    runs = plan(artefact, choose_budget(artefact, "smoke"), tmp_path, ["--model.no_such_option=1"])[:1]
    progress = Progress(runs, 0, 1, {})
    with Pool(1) as pool:
        for ended in pool.run(progress.jobs()):
            progress.add(ended, False)
    assert list(progress.failed) == [runs[0].name]
    assert "no_such_option" in progress.failed[runs[0].name] and str(runs[0].log) in progress.failed[runs[0].name]
    assert "[0/1, 1 failed]" in capfd.readouterr().out


def test_the_plan_says_how_many_runs_there_are_and_how_long_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("lit_mbrl.app.commands.paper.command.measure", lambda run: cost.Cost(120.0, 5e8))
    words = ["paper", "sac_svg/table_2", "--tasks=swimmer", "--seeds=10-12", "--jobs=2", "--dry-run"]
    assert main([*words, f"--out={tmp_path}"]) == 0
    out = capfd.readouterr().out
    assert "6 runs to make, 2 at a time: about 6 min 0 s on this machine" in out
    assert "disk: about 3 GB more; free disk space there: " in out
    assert out.count("about 2 min 0 s") == 2 and "petscheetah" not in out and not list(tmp_path.iterdir())


def test_costs_are_extrapolated_from_the_timed_steps(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", evaluations(1.0, 2.0), data={"total_frames": 1000})
    points = cost._points(folder)
    assert points == [(50.0, 25.0), (100.0, 50.0), (200.0, 100.0)]
    # Half a second a step from step 50 on, and five seconds before.
    assert cost._extrapolate(points, 1000, 80.0) == 5.0 + 950 * 0.5
    assert cost._extrapolate(points[:1], 1000, 80.0) != cost._extrapolate(points[:1], 1000, 80.0)  # NaN


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sac_svg/table_3"], "sac_svg/table_3: expected one of sac_svg/table_2, "),
        (
            ["sac_svg/table_2", "--budget=huge"],
            "--budget=huge: expected one of smoke, laptop, paper for sac_svg/table_2",
        ),
        (["lecture/car_racing"], "lecture/car_racing: not yet: "),
        (["sac_svg/table_2", "--tasks=swimmer,ants"], "--tasks=swimmer,ants: expected some of swimmer, petscheetah"),
        (["sac_svg/table_2", "--variants=svg"], "--variants=svg: expected some of sac, svg_2"),
        (["sac_svg/table_2", "--seeds=a"], "--seeds=a: expected seeds, as 10-19,25"),
        (["sac_svg/table_2", "--jobs=0"], "--jobs=0: expected an integer > 0"),
        (["sac_svg/table_2", "--budgets=smoke"], "--budgets=smoke: no such option"),
        (["sac_svg/table_2", "--", "--seed_everything=1"], "--seed_everything=1: expected another option, paper gives"),
    ],
)
def test_mistakes_are_one_line(words: list[str], line: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(["paper", *words]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"error: {line}") and err.count("\n") == 1
    assert not (work / "runs").exists()


def test_the_list_has_every_artefact(capfd: pytest.CaptureFixture) -> None:
    assert main(["paper"]) == 0
    lines = capfd.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(ARTEFACTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, artefact in ARTEFACTS.items() if "smoke" in artefact.budgets])
def test_every_artefact_from_its_runs_to_its_page(name: str, tmp_path: Path) -> None:
    assert main(["paper", name, "--budget=smoke", f"--out={tmp_path}"]) == 0
    assert (tmp_path / "report" / name / "smoke" / "index.html").is_file()
    budget = ARTEFACTS[name].budgets["smoke"]
    assert all(is_finished(run) for run in plan(ARTEFACTS[name], budget, tmp_path, []))
