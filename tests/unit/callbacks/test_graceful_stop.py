"""Ctrl-C and SIGTERM: the round ends, the checkpoint is complete, and a resumed run ends as if nothing had happened."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from lit_mbrl.app.application import Application
from lit_mbrl.app.cli import CONF, main
from lit_mbrl.app.output import silence_libraries
from lit_mbrl.callbacks import GracefulStop, SoftTargetUpdate
from lit_mbrl.data import OffPolicy
from tests.helpers.command_line import SAC, load, rows, run_folders, same

SENDER = "--trainer.callbacks+=tests.helpers.command_line.SendSignal"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*SAC, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Rounds run from 1 to 40, epochs end at 20 and 40; round 0 stands for the warm-up.
@pytest.mark.parametrize(
    ("round", "number", "stops_at"),
    [(7, signal.SIGINT, 7), (27, signal.SIGTERM, 27), (20, signal.SIGINT, 20), (0, signal.SIGTERM, 1)],
)
def test_stopped_and_resumed_is_the_uninterrupted_run(
    round: int, number: int, stops_at: int, whole: Path, capfd: pytest.CaptureFixture
) -> None:
    before = signal.getsignal(number)
    options = [f"--trainer.callbacks.round={round}", f"--trainer.callbacks.number={int(number)}"]
    assert main([*SAC, SENDER, *options]) == 0
    out, err = capfd.readouterr()
    assert signal.getsignal(number) is before
    assert "Stopping after this training step" in err
    folder = run_folders(Path())[0]
    saved = load(folder / "checkpoints" / "last.ckpt")
    assert saved["lit_mbrl"]["train_steps"] == stops_at
    stopped = re.search(r"^Stopped at (\d+) env steps. Resume: (.*)$", out, re.MULTILINE)
    assert stopped and int(stopped[1]) == saved["lit_mbrl"]["env_steps"]
    command = shlex.split(stopped[2])
    assert command[:3] == ["python", "-m", "lit_mbrl"] and command[-2] == "--ckpt_path"
    assert Path(command[-1]) == folder / "checkpoints" / "last.ckpt"

    assert main([*SAC, "--ckpt_path", "last"]) == 0
    assert run_folders(Path()) == [folder]
    assert rows(folder) == rows(whole)
    ours, theirs = (load(path / "checkpoints" / "last.ckpt") for path in (folder, whole))
    for part in ("state_dict", "optimizer_states", "OffPolicy", "lit_mbrl"):
        assert same(ours[part], theirs[part]), part


def test_at_the_end_of_an_epoch_the_evaluation_comes_first() -> None:
    assert main([*SAC, SENDER, "--trainer.callbacks.round=20"]) == 0
    folder = run_folders(Path())[0]
    assert [row["time/train_steps"] for row in rows(folder) if row["eval/return"]] == ["20.0"]
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_in_mid_epoch_there_is_no_evaluation() -> None:
    assert main([*SAC, SENDER, "--trainer.callbacks.round=19"]) == 0
    assert not (run_folders(Path())[0] / "checkpoints" / "best.ckpt").exists()


def test_a_signal_in_the_last_round_of_all_is_a_finished_run(capfd: pytest.CaptureFixture) -> None:
    assert main([*SAC, SENDER, "--trainer.callbacks.round=40"]) == 0
    assert "Finished: 60 env steps" in capfd.readouterr().out


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM,) * 3, (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_programs_may_repeat_themselves(numbers: tuple[int, ...], capfd: pytest.CaptureFixture) -> None:
    """An agent or a scheduler sends SIGTERM to a run that is stopping already."""
    several = ["--trainer.callbacks.round=7", f"--trainer.callbacks.number={[int(number) for number in numbers]}"]
    assert main([*SAC, SENDER, *several]) == 0
    assert load(run_folders(Path())[0] / "checkpoints" / "last.ckpt")["lit_mbrl"]["train_steps"] == 7
    out, err = capfd.readouterr()
    assert err.count("Stopping after this training step") == 1 and out.count("Stopped at 27 env steps") == 1


def test_a_run_that_has_stopped_closes_its_loggers_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disturbed(Exception):
        pass

    def disturbed(number: int, frame: object) -> None:
        raise Disturbed

    teardown = OffPolicy.teardown

    def repeat(self: OffPolicy, stage: str) -> None:
        teardown(self, stage)
        if signal.getsignal(signal.SIGINT) is before:  # Lightning is done, and has given the signals back
            os.kill(os.getpid(), signal.SIGTERM)
            sent.append(stage)

    sent: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    previous = signal.signal(signal.SIGTERM, disturbed)
    monkeypatch.setattr(OffPolicy, "teardown", repeat)
    try:
        assert main([*SAC, SENDER, "--trainer.callbacks.round=7"]) == 0
        assert signal.getsignal(signal.SIGTERM) is disturbed and sent
        with pytest.raises(Disturbed):  # nobody has asked this one to stop
            main(SAC)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_second_sigint_stops_at_once(capfd: pytest.CaptureFixture) -> None:
    assert main([*SAC, SENDER, "--trainer.callbacks.round=7", "--trainer.callbacks.number=[2,15,2]"]) == 130
    assert not (run_folders(Path())[0] / "checkpoints" / "last.ckpt").exists()
    assert "Stopped at once" in capfd.readouterr().err


def test_targets_follow_before_the_checkpoint_is_written() -> None:
    with silence_libraries(), ExitStack() as until_the_end:
        application = Application([*SAC, "--trainer.max_epochs=1"], until_the_end)
    names = [type(callback).__name__ for callback in application.trainer.callbacks]
    assert names.index(SoftTargetUpdate.__name__) < names.index(GracefulStop.__name__) < names.index("Checkpoint")
    assert names[-1] == "Checkpoint"


def test_ctrl_c_of_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lit_mbrl", *SAC, "--data.total_frames=100000"]
    environment = os.environ | {"PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("runs/*/*/*/checkpoints/last.ckpt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0
    assert re.search(
        r"^Stopped at [\d,]+ env steps. Resume: python -m lit_mbrl fit .* --ckpt_path runs/\S+/last.ckpt$", out, re.M
    )
    assert "Traceback" not in err
