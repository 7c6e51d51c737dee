"""The command with real runs of a second: finished, repeated, interrupted, failing, of other sources or options."""

from __future__ import annotations

import fcntl
import io
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lit_mbrl.app.cli import CONF, main
from lit_mbrl.app.commands.qualify.plan import plan
from lit_mbrl.app.commands.qualify.report import as_table, markdown, read_results
from lit_mbrl.app.commands.qualify.thresholds import read_thresholds
from lit_mbrl.app.experiment import sources
from lit_mbrl.app.experiment.paths import PATHS
from lit_mbrl.utils.pool import Pool
from tests.helpers.command_line import TINY, rows


def thresholds(folder: Path, threshold: float = -5000.0, **entry: Any) -> str:
    """A folder with SAC's config and a threshold for it; what every agent reaches if nothing else is said."""
    folder.mkdir(exist_ok=True)
    (folder / "sac.yaml").write_text((CONF / "sac.yaml").read_text())
    (folder / "qualification.yaml").write_text(yaml.safe_dump({"sac": {"threshold": threshold, **entry}}))
    return f"--thresholds={folder / 'qualification.yaml'}"


def command(folder: Path, *options: str, seeds: str = "10-11", overrides: Sequence[str] = TINY) -> list[str]:
    """The command on the runs in a folder."""
    words = ["qualify", "sac", thresholds(folder), f"--seeds={seeds}", f"--out={folder / 'out'}"]
    return [*words, *options, "--", *overrides]


@pytest.fixture(scope="module")
def qualified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of two finished runs, and what the command printed. Copy it before changing it."""
    folder, out = tmp_path_factory.mktemp("qualified") / "a", io.StringIO()
    with redirect_stdout(out):
        assert main(command(folder, f"--results={folder / 'results'}", "--random-episodes=7")) == 0
    return folder, out.getvalue()


@pytest.fixture
def copied(qualified: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder; how torch rounds is known from there, and takes no process."""
    (results,) = read_results(qualified[0] / "results")
    known = {key: results["paths"]["native"][key] for key in ("cpu_capability", "mkl", "rounding")}
    monkeypatch.setattr(sources, "probe", lambda path: known)
    return Path(shutil.copytree(qualified[0], tmp_path / "b"))


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that would be started; none is."""
    names: list[str] = []

    def run(pool: Pool, jobs: Any) -> Any:
        names.extend(job.name for job in jobs)
        return iter(())

    monkeypatch.setattr(Pool, "run", run)
    return names


def test_two_seeds_and_what_is_said_of_them(qualified: tuple[Path, str]) -> None:
    folder, out = qualified
    lines = out.splitlines()
    assert lines[0] == "2 runs: 0 finished, 2 to run, 0 of them to resume"
    assert re.fullmatch(r"\[1/2, [\d mins]+ left\] sac native seed 1[01]: -\d+\.\d ok, \d+ s", lines[1])
    assert re.fullmatch(r"\[2/2\] sac native seed 1[01]: -\d+\.\d ok, \d+ s", lines[2])
    assert lines[-3] == "sac: 2 of 2" and lines[-1] == f"written: {folder / 'results' / 'sac.json'}"
    (results,) = read_results(folder / "results")
    assert as_table([results]) in out
    found = {run["seed"]: run for run in results["paths"]["native"]["runs"]}
    assert found.keys() == {10, 11}
    for seed, run in found.items():
        table = [row for row in rows(folder / "out" / "sac" / "native" / f"seed_{seed}") if row["eval/return"]]
        assert run["env_steps"] == [40, 60] == [int(row["step"]) for row in table]
        np.testing.assert_allclose(run["returns"], [float(row["eval/return"]) for row in table], rtol=1e-6)
        assert run["final"] == run["returns"][-1] and run["first_reached_at"] == 40 and run["seconds"] > 0
    finals = [run["final"] for run in found.values()]
    summary = results["paths"]["native"]["summary"]
    assert summary["mean"] == pytest.approx(np.mean(finals)) and summary["worst"] == min(finals)
    assert results["verdict"] == {"reached": 2, "runs": 2, "qualified": True}
    assert results["random"]["episodes"] == 7 and -400 < results["random"]["return"] < 0  # of twenty steps
    assert (results["environment"], results["total_frames"], results["seeds"]) == ("Pendulum-v1", 60, "10-11")
    assert results["paths"]["native"]["commits"] == [sources.commit()]
    assert results["commands"]["native"].startswith(
        "python -m lit_mbrl qualify sac --seeds=10-11 --paths=native --thresholds="
    )
    assert results["commands"]["native"].endswith(" -- " + " ".join(f"'{o}'" if "[" in o else o for o in TINY))
    native = results["paths"]["native"]
    assert native["processor"]["name"] and {"torch", "lit_mbrl", "python"} <= native["versions"].keys()


def test_runs_are_those_of_fit_alone(qualified: tuple[Path, str], work: Path) -> None:
    alone = ["fit", "--config=conf/sac.yaml", *TINY, "--trainer.logger=false", "--seed_everything=11"]
    assert main([*alone, "--trainer.default_root_dir=alone"]) == 0
    assert rows(work / "alone") == rows(qualified[0] / "out" / "sac" / "native" / "seed_11")


def test_finished_runs_are_not_repeated(copied: Path, no_runs: list[str], capfd: pytest.CaptureFixture) -> None:
    assert main(command(copied)) == 0
    assert no_runs == [] and capfd.readouterr().out.startswith("2 runs: 2 finished, 0 to run")
    first, second = (json.loads((copied / name / "sac.json").read_text()) for name in ("results", "out"))
    assert first["paths"] == second["paths"]
    assert main(command(copied, seeds="9-11")) == 1  # nothing has run it here
    assert no_runs == ["sac native seed 9"]


def test_a_threshold_may_change_afterwards(copied: Path, no_runs: list[str], capfd: pytest.CaptureFixture) -> None:
    (results,) = read_results(copied / "results")
    low, high = sorted(run["final"] for run in results["paths"]["native"]["runs"])
    words = command(copied)
    for entry, code, line in (
        ({"threshold": (low + high) / 2}, 1, "sac: 1 of 2: does not qualify on native"),
        ({"threshold": low - 1, "floor": low + 0.1}, 1, f"sac: 2 of 2, 1 below the floor of {low + 0.1:g}: does not"),
        ({"threshold": low - 1, "floor": low - 0.1}, 0, "sac: 2 of 2"),
    ):
        thresholds(copied, **entry)
        assert main(words) == code
        assert f"\n{line}" in capfd.readouterr().out
    assert no_runs == []


def test_other_options_or_configs_are_refused(copied: Path, no_runs: list[str], capfd: pytest.CaptureFixture) -> None:
    def refused() -> bool:
        out, err = capfd.readouterr()
        line = "sac/native/seed_10: this run was made with another config or other options; choose another --out\n"
        return out == "" and err.startswith("error: ") and err.endswith(line)

    assert main(command(copied, overrides=[*TINY, "--model.gamma=0.9"])) == 2 and refused()
    words = command(copied)
    (copied / "sac.yaml").write_text((copied / "sac.yaml").read_text().replace("1.0e-3", "2.0e-3"))
    assert main(words) == 2 and refused()
    assert main(command(copied, "--reuse", overrides=TINY[1:])) == 2 and refused()  # that is about the sources alone
    (copied / "out" / "sac" / "native" / "seed_10.json").unlink()
    assert main(words) == 2
    assert "seed_10: expected the folder of a run of qualify, or none; choose another --out" in capfd.readouterr().err
    (copied / "out" / "sac" / "native" / "seed_10.json").write_text("{}")
    assert main(words) == 2
    assert "seed_10.json: expected the record of an experiment's run\n" in capfd.readouterr().err
    assert no_runs == []


def test_runs_of_other_sources_are_put_aside(
    copied: Path, no_runs: list[str], capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sources.commit()
    monkeypatch.setattr(sources, "commit", lambda: "0123456789abcdef")
    native = copied / "out" / "sac" / "native"
    old = {path.name: path.read_bytes() for path in native.glob("seed_*.*")}
    metrics = (native / "seed_10" / "metrics.csv").read_bytes()
    assert main(command(copied, "--dry-run")) == 0
    out, err = capfd.readouterr()
    line = "warning: 2 runs are not of the present sources (0123456) and will be put aside and repeated; --reuse keeps"
    assert err.startswith(line) and err.count("\n") == 1
    assert out.startswith("2 runs: 0 finished, 2 to run, 0 of them to resume\n") and "ckpt_path" not in out
    assert main(command(copied, "--reuse")) == 0 and no_runs == []
    assert capfd.readouterr().err == ""
    assert main(command(copied)) == 1 and no_runs == ["sac native seed 10", "sac native seed 11"]
    assert "sac: 0 of 2, no run is finished" in capfd.readouterr().out
    aside = copied / "out" / "superseded" / before[:16] / "sac" / "native"
    assert {path.name: path.read_bytes() for path in aside.glob("seed_*.*")} == old
    assert (aside / "seed_10" / "metrics.csv").read_bytes() == metrics
    assert json.loads((native / "seed_10.json").read_text())["commits"] == ["0123456789abcdef"]


def test_a_config_that_changes_meanwhile_fails_its_runs(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def run(pool: Pool, jobs: Any) -> Any:
        (copied / "sac.yaml").write_text("model: {class_path: SAC}\n")
        assert list(jobs) == []
        return iter(())

    monkeypatch.setattr(Pool, "run", run)
    assert main(command(copied, seeds="10-12")) == 1
    out = capfd.readouterr().out
    assert re.search(r"^failed: sac native seed 12: \S+sac.yaml or base.yaml has changed since the command", out, re.M)
    assert "\nsac: 2 of 3: does not qualify on native\n" in out


def test_a_failing_run_stops_no_other(copied: Path, capfd: pytest.CaptureFixture) -> None:
    (goal,) = read_thresholds(copied / "qualification.yaml").values()
    (blocked,) = plan([goal], [PATHS["native"]], [12], copied / "out", TINY)
    blocked.job()  # as a qualify that was killed leaves it, whose run goes on
    blocked.folder.mkdir()
    with (blocked.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command(copied, "--jobs=2", seeds="12-13")) == 1
    out, err = capfd.readouterr()
    assert re.search(r"^\[\d/2.*\] sac native seed 13: -[\d.]+ ok, \d+ s$", out, re.M)
    failed = re.search(r"^failed: sac native seed 12: exit code 2, error: (.*) \(log: (.*)\)$", out, re.M)
    assert failed and "no other run is going on" in failed[1] and Path(failed[2]) == blocked.log
    assert "\nsac: 1 of 2: does not qualify on native\n" in out and err == ""
    runs = json.loads((copied / "out" / "sac.json").read_text())["paths"]["native"]["runs"]
    assert runs[0] == {"seed": 12, "failed": True} and runs[1]["final"] < 0


def test_one_qualify_at_a_time(copied: Path, capfd: pytest.CaptureFixture) -> None:
    with (copied / "out" / "sac" / "native" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command(copied)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("sac/native: expected a folder in which no other qualify is going on")


def test_interrupted_and_repeated(copied: Path, capfd: pytest.CaptureFixture) -> None:
    overrides = [
        *TINY,
        "--trainer.callbacks+=tests.unit.app.commands.qualify.interrupt.InterruptParent",
        "--trainer.callbacks.round=13",
    ]
    words, native = command(copied / "new", seeds="10", overrides=overrides), copied / "new" / "out" / "sac" / "native"
    assert main(words) == 130
    out, err = capfd.readouterr()
    assert out == "1 run: 0 finished, 1 to run, 0 of them to resume\n"
    assert err == "Stopped: 0 of 1 runs are finished. The same command goes on.\n"
    stopped = re.search(r"^Stopped at ([\d,]+) env steps\. Resume: ", (native / "seed_10.log").read_text(), re.M)
    assert stopped and int(stopped[1]) < 60 and not (copied / "new" / "out" / "sac.json").exists()
    assert main(words) == 0
    first, second, *_ = capfd.readouterr().out.splitlines()
    assert first == "1 run: 0 finished, 1 to run, 1 of them to resume"
    assert re.fullmatch(r"\[1/1\] sac native seed 10: -[\d.]+ ok, \d+ s", second)
    assert f"resumed at {stopped[1]} env steps" in (native / "seed_10.log").read_text()
    assert rows(native / "seed_10") == rows(copied / "out" / "sac" / "native" / "seed_10")  # which nothing interrupted


def test_markdown_has_a_row_per_config_and_path(qualified: tuple[Path, str], capfd: pytest.CaptureFixture) -> None:
    folder, _ = qualified
    assert main(["qualify", f"--table={folder / 'results'}"]) == 0
    out = capfd.readouterr().out
    (results,) = read_results(folder / "results")
    assert out == markdown([results]) + "\n"
    header, rule, row = (line.strip("|").split("|") for line in out.splitlines())
    assert len(header) == len(rule) == len(row)
    cells = dict(zip((name.strip() for name in header), (cell.strip() for cell in row), strict=True))
    summary = results["paths"]["native"]["summary"]
    assert cells["config"] == "`sac`" and cells["environment, env steps"] == "Pendulum-v1, 60"
    assert cells["seeds"] == "10-11" and cells["path"] == "`native`" and cells["reached"] == "2 of 2"
    assert cells["threshold (random)"] == f"-5000 ({results['random']['return']:.0f})"
    assert cells["worst"] == f"{summary['worst']:.0f}" and cells["fell back"] == "0"
    assert cells["per seed"] == ", ".join(f"{run['final']:.0f}" for run in results["paths"]["native"]["runs"])
    assert cells["processor, commit"].endswith(f", {sources.short(sources.commit())}")
