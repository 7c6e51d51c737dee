"""A run as a Slurm job: every signal of a scheduler stops it with a checkpoint, and a requeued job goes on from it."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from lit_mbrl.app.cli import main
from tests.helpers.command_line import SAC, load, rows, run_folders, same

SENDER = "--trainer.callbacks+=tests.helpers.command_line.SendSignal"
SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]


@pytest.fixture(autouse=True)
def job(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The variables of a job with one task, and a `scontrol` that writes down what it is told."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    variables = {"JOB_ID": "123", "JOB_NAME": "train", "NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0"}
    for name, value in (variables | {"LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    tools = work.parent / "tools"
    tools.mkdir()
    program = tools / "scontrol"
    program.write_text(f'#!/bin/sh\necho "scontrol $@" >> "{tools}/calls"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def calls(job: Path) -> list[str]:
    """Reads the command lines that `scontrol` was called with."""
    return (job / "calls").read_text().splitlines() if (job / "calls").exists() else []


def stopped_by(number: int, *options: str, round: int = 7) -> None:
    """A run that gets a signal in a round."""
    before = [signal.getsignal(each) for each in SIGNALS]
    sender = [SENDER, f"--trainer.callbacks.round={round}", f"--trainer.callbacks.number={int(number)}"]
    assert main([*SAC, *sender, *options]) == 0
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_graceful_stop(number: int, job: Path, capfd: pytest.CaptureFixture) -> None:
    previous = signal.signal(number, signal.default_int_handler)  # not ignored, as under nohup
    try:
        stopped_by(number)
    finally:
        signal.signal(number, previous)
    (folder,) = run_folders(Path())
    assert folder.name.endswith("-job123")
    assert [path.name for path in folder.rglob("*.ckpt")] == ["last.ckpt"]
    assert load(folder / "checkpoints" / "last.ckpt")["lit_mbrl"]["train_steps"] == 7
    out = capfd.readouterr().out
    assert "Stopped at 27 env steps. Resume: " in out
    # SIGUSR1 is the one at which Lightning's users expect to be queued again; Slurm itself does it after the others.
    assert calls(job) == (["scontrol requeue 123"] if number == signal.SIGUSR1 else [])
    assert ("Slurm starts job 123 again" in out) == (number == signal.SIGUSR1)


def test_a_requeued_job_is_the_uninterrupted_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0  # an earlier run of the same job, whose files look newer
    others = set(run_folders(Path()))
    stopped_by(signal.SIGUSR1, round=27)
    (folder,) = set(run_folders(Path())) - others
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for other in others:
        os.utime(other / "checkpoints" / "last.ckpt", (2e9, 2e9))
    capfd.readouterr()
    assert main(SAC) == 0
    out = capfd.readouterr().out
    assert f"run folder: {folder}, resumed at 47 env steps" in out and "Finished: 60 env steps" in out
    assert rows(folder) == rows(finished)
    ours, theirs = (load(path / "checkpoints" / "last.ckpt") for path in (folder, finished))
    for part in ("state_dict", "optimizer_states", "OffPolicy", "lit_mbrl"):
        assert same(ours[part], theirs[part]), part


def test_a_requeued_job_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    stopped_by(signal.SIGTERM, "--trainer.default_root_dir=mine")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main([*SAC, "--trainer.default_root_dir=mine"]) == 0
    assert "run folder: mine, resumed at 27 env steps" in capfd.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("RESTART_COUNT", "0"), ("JOB_ID", "124"), ("JOB_NAME", "bash")])
def test_another_job_begins_anew(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_by(signal.SIGTERM)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv(f"SLURM_{name}", value)
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0
    assert len(run_folders(Path())) == 2


def test_a_job_that_cannot_be_queued_again(job: Path, capfd: pytest.CaptureFixture) -> None:
    (job / "scontrol").write_text("#!/bin/sh\necho 'Job is not requeueable' >&2\nexit 1\n")
    stopped_by(signal.SIGUSR1)
    line = "Slurm does not start job 123 again: `scontrol requeue 123` says: Job is not requeueable"
    assert line in capfd.readouterr().out.splitlines()


def test_lightning_s_own_checkpoint_is_left_alone() -> None:
    Path("mine").mkdir()
    Path("mine/hpc_ckpt_1.ckpt").write_bytes(b"of another kind")
    assert main([*SAC, "--trainer.default_root_dir=mine", "--trainer.max_epochs=1"]) == 0
    assert Path("mine/hpc_ckpt_1.ckpt").read_bytes() == b"of another kind"


def test_under_nohup_the_end_of_the_terminal_is_no_reason() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        options = ["--trainer.callbacks.round=7", f"--trainer.callbacks.number={int(signal.SIGHUP)}"]
        assert main([*SAC, SENDER, *options]) == 0
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert load(run_folders(Path())[0] / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 60
