"""Launchers: runs by submitit's local executor and on a Ray of this machine, stopped, lost, and begun again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lit_mbrl.app.experiment.launchers import make_launcher, run_command
from lit_mbrl.utils.errors import OptionError, UsageError
from lit_mbrl.utils.pool import LOST, Job, Launcher, Pool
from tests.unit.utils.test_pool import PATIENT, job, until_ready


@pytest.fixture(params=["slurm", "ray"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """Submitit's executor of local processes, or a Ray of this machine with two cores."""
    if request.param == "slurm":
        pytest.importorskip("submitit")
        yield make_launcher("slurm", "cluster=local,timeout_min=5", tmp_path / "launcher")
        return
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield make_launcher("ray", "num_cpus=1", tmp_path / "launcher")
    ray.shutdown()


def codes(launcher: Launcher, *jobs: Job) -> dict[str, int]:
    with Pool(2, launcher) as pool:
        return {finished.job.name: finished.exit_code for finished in pool.run(jobs)}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_exit_codes_logs_environment_and_folder(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; print(os.environ['COLOUR'], os.getcwd())"
    jobs = [job(tmp_path, "good", code, COLOUR="red"), job(tmp_path, "bad", "raise SystemExit(3)")]
    assert codes(launcher, *jobs) == {"good": 0, "bad": 3}
    command, output = jobs[0].log.read_text().splitlines()
    assert command.startswith("$ ") and output == f"red {os.getcwd()}"


def test_a_signal_lets_runs_save(launcher: Launcher, tmp_path: Path) -> None:
    patient = job(tmp_path, "patient", PATIENT)

    def jobs() -> Iterator[Job]:
        yield patient
        until_ready(patient)
        os.kill(os.getpid(), signal.SIGTERM)

    with Pool(2, launcher) as pool:
        (finished,) = list(pool.run(jobs()))
    assert pool.stopped == signal.SIGTERM and finished.exit_code <= 0
    until(lambda: "saved" in patient.log.read_text())


def test_a_worker_that_dies_is_lost(launcher: Launcher, tmp_path: Path) -> None:
    # The parent of the command is the launcher's own process on the other machine.
    assert codes(launcher, job(tmp_path, "lost", "import os; os.kill(os.getppid(), 9)")) == {"lost": LOST}


def test_a_command_that_is_run_here_gets_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_MACHINE", "mine")
    given = {"OF_MACHINE": "theirs", "OF_JOB": "kept", "SLURM_JOB_ID": "1", "PYTHONPATH": "there"}
    code = "import os; print([os.environ.get(n) for n in ('OF_MACHINE', 'OF_JOB', 'SLURM_JOB_ID', 'PYTHONPATH')])"
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert run_command([sys.executable, "-c", code], str(tmp_path / "log"), given, str(tmp_path)) == 0
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert (tmp_path / "log").read_text() == "['mine', 'kept', None, 'there']\n"


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("pbs", "", "--launcher=pbs: expected one of local, slurm, ray"),
        ("local", "timeout_min=3", "--launcher-options=timeout_min=3: expected none with --launcher=local"),
        ("slurm", "timeout_min", "--launcher-options=timeout_min: expected key=value, with commas in between"),
        ("slurm", "cluster=local,no_such=1", "--launcher=slurm: "),
        ("slurm", "cluster=moon", "--launcher=slurm: "),
        ("ray", "cpus=1", "--launcher-options=cpus: expected address, num_cpus or num_gpus with --launcher=ray"),
    ],
)
def test_mistakes(name: str, options: str, line: str, tmp_path: Path) -> None:
    if name in ("slurm", "ray"):
        pytest.importorskip({"slurm": "submitit", "ray": "ray"}[name])
    with pytest.raises((OptionError, UsageError)) as found:
        make_launcher(name, options, tmp_path)
    assert str(found.value).startswith(line)
