"""Two processes over gloo train one algorithm: equal weights, own data, exact resume, a common stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lit_mbrl.app.cli import CONF, main
from tests.helpers.command_line import NO_WANDB, SAC, load, rows

# 240 rounds; the ranks share batches of 8.
RUN = [*SAC, "--data.total_frames=260", "--data.epoch_frames=100", "--model.normalize_observations=true"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


def environment(**more: str) -> dict[str, str]:
    """Of a process that listens on loopback only."""
    own = {"PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    inherited = {name: value for name, value in os.environ.items() if name not in ("LIT_MBRL_RUN_FOLDER", "LOCAL_RANK")}
    return inherited | own | more


def command_line(arguments: list[str], folder: Path, timeout: float = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lit_mbrl", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout)


def test_stopped_by_one_rank_and_resumed(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Through the real command line: SIGINT to rank 0, then on to the end, and what else may be done with it."""
    folder = f"--trainer.default_root_dir={tmp_path}"
    stop = ["--trainer.callbacks+=tests.system.two_ranks.SignalOneRank", "--trainer.callbacks.rank=0"]
    stopped = command_line([*RUN, *TWO, *stop, "--trainer.callbacks.round=30", folder], tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stderr.count("Stopping after this training step") == 1
    assert re.search(r"^Stopped at 50 env steps. Resume: ", stopped.stdout, re.MULTILINE)
    assert stopped.stdout.count("SAC (Haarnoja et al. 2018") == 1
    assert "Traceback" not in stopped.stderr
    path = tmp_path / "checkpoints" / "last.ckpt"
    saved = load(path)
    assert (saved["lit_mbrl"]["train_steps"], saved["lit_mbrl"]["env_steps"], saved["lit_mbrl"]["devices"]) == (
        30,
        50,
        2,
    )
    replays = [own["replay"]["frames"]["action"] for own in saved["OffPolicy"]["ranks"]]
    assert [len(actions) for actions in replays] == [25, 25] and not torch.equal(*replays)

    # The other number of devices is refused before anything is launched.
    assert main([*RUN, folder, f"--ckpt_path={path}"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and re.match(r"error: --trainer.devices=1: expected 2 as in .*last.ckpt", error)

    dump = "--trainer.callbacks+=tests.system.two_ranks.Dump"
    resumed = command_line([*RUN, *TWO, dump, folder, "--ckpt_path=last"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"^Finished: 260 env steps", resumed.stdout, re.MULTILINE)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for key in (key for key in first if key.startswith(("module.", "optimizer.", "clock"))):
        assert torch.equal(first[key], second[key]), key
    assert first["clock"].tolist() == [260, 240]
    assert not torch.equal(first["replay.action"], second["replay.action"])
    table = rows(tmp_path)
    # One row per log or evaluation, none twice: one rank writes.
    logged = [row["time/train_steps"] for row in table if row["loss/critic"]]
    assert logged == [f"{10.0 * n}" for n in range(1, 25)]
    assert [row["step"] for row in table if row["eval/return"]] == ["100", "200", "260"]
    # Episodes have 20 steps, so each rank ends one every 40 steps of both.
    assert {row["train/episode_length"] for row in table} <= {"", "20.0"}

    # A checkpoint of two devices can be evaluated on one.
    assert main(["validate", f"--ckpt_path={path}", "--trainer.devices=1", "--trainer.strategy=auto"]) == 0
    assert "eval return" in capfd.readouterr().out


def test_two_ranks_agree(tmp_path: Path) -> None:
    """`tests/system/two_ranks.py` on both ranks: messages, averaged gradients, counters, statistics, exact resume."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    command = [sys.executable, "-W", "error::UserWarning", "-m", "tests.system.two_ranks", str(tmp_path)]
    processes = [
        subprocess.Popen(
            command,
            cwd=CONF.parent,
            env=environment(LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        results = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, (out, err) in enumerate(results):
        assert f"rank {rank} agrees" in out, err


def started(folder: Path) -> subprocess.Popen:
    """A long run of two processes in a group of their own, as a terminal starts it; it has saved once."""
    long = ["--data.total_frames=100000", *TWO, f"--trainer.default_root_dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_mbrl", *RUN, *long],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def end_of(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_saves_once(tmp_path: Path) -> None:
    process = started(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    code, out, err = end_of(process)
    assert code == 0 and "Traceback" not in err
    assert err.count("Stopping after this training step") == 1
    stopped = re.search(r"^Stopped at ([\d,]+) env steps. Resume: ", out, re.MULTILINE)
    saved = load(tmp_path / "checkpoints" / "last.ckpt")["lit_mbrl"]
    assert stopped and int(stopped[1].replace(",", "")) == saved["env_steps"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_one_line(killed: int, tmp_path: Path) -> None:
    process = started(tmp_path)
    ranks = [path for path in Path("/proc").glob("[0-9]*/environ") if is_rank_of(process.pid, path)]
    os.kill(int(ranks[0].parent.name) if killed else process.pid, signal.SIGKILL)
    code, _, err = end_of(process)
    errors = [line for line in err.splitlines() if line.startswith("error")]
    which = "error: the process of device 1 has failed (SIGKILL). At "
    if killed == 0:
        which = "error on device 1: the process of another device has failed. At "
    assert len(errors) == 1 and errors[0].startswith(which)
    assert "the last good checkpoint is checkpoints/last.ckpt (" in errors[0]
    assert "Traceback" not in err and code == (1 if killed else -signal.SIGKILL)


def is_rank_of(parent: int, environ: Path) -> bool:
    """Whether a process is the second rank of a run: a child with a rank and the command line of its parent."""
    try:
        child = environ.with_name("stat").read_text().rpartition(")")[2].split()[1] == str(parent)
        return child and b"LOCAL_RANK=1" in environ.read_bytes()
    except OSError:  # it has ended meanwhile
        return False


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_all_with_its_reason(rank: int, tmp_path: Path) -> None:
    fail = ["--trainer.callbacks+=tests.system.two_ranks.FailOneRank", f"--trainer.callbacks.rank={rank}"]
    options = [*fail, "--trainer.callbacks.round=30", f"--trainer.default_root_dir={tmp_path}"]
    failed = command_line([*RUN, *TWO, *options], tmp_path)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error")]
    reason = "this one alone has failed. At 50 env steps; there is no checkpoint yet"
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    if rank == 0:
        assert errors == [f"error: {reason}"]
        return
    assert errors[0] == f"error on device 1: {reason}" and len(errors) == 2
    assert re.match(
        r"error: the process of device 1 has failed \(exit code 1\). At 5\d env steps; there is no", errors[1]
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--data.batch_size=7", *TWO], "--data.batch_size=7: expected a multiple of the number of devices"),
        (["--data.sequence_batch_size=3", *TWO], "--data.sequence_batch_size=3: expected a multiple of the number of"),
        (["--trainer.devices=2", "--trainer.strategy=fsdp"], "--trainer.strategy=fsdp: expected auto or ddp"),
        (["--trainer.strategy=deepspeed"], "--trainer.strategy=deepspeed: expected auto or ddp"),
        (["--trainer.devices=2", "--trainer.strategy=ddp_spawn"], "--trainer.strategy=ddp_spawn: expected auto or ddp"),
        (["--trainer.precision=16-mixed"], "--trainer.precision=16-mixed: expected bf16-mixed on a CPU"),
        (["--trainer.precision=bf16-true"], "--trainer.precision=bf16-true: expected 32-true, bf16-mixed or 16-mixed"),
        (["--trainer.precision=64-true"], "--trainer.precision=64-true: expected 32-true, bf16-mixed or 16-mixed"),
    ],
)
def test_what_cannot_work_is_one_line(
    options: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, *options]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: {line}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("options", [TWO, ["--trainer.precision=bf16-mixed"]], ids=["two ranks", "bf16"])
def test_learns_like_one_device_in_float32(options: list[str], tmp_path: Path) -> None:
    """Pendulum with the total batch and frames of one device.

    The uniformly random policy gets -1200 +- 300 per episode, so the mean of ten is above -400 with a chance far below
    one in a million.
    """
    arguments = ["fit", "--config", "conf/sac_svg.yaml", NO_WANDB, "--trainer.accelerator=cpu", *options]
    assert command_line([*arguments, f"--trainer.default_root_dir={tmp_path}"], tmp_path, 3600).returncode == 0
    assert max(float(row["eval/return"]) for row in rows(tmp_path) if row["eval/return"]) > -400
