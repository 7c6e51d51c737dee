"""Room on the disk is asked for before a run begins, and what is asked for is what it takes."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.data import OffPolicy, Replay
from lit_mbrl.data.buffers.disk import COPIES, check_disk, frames_in_files
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.data.buffers.transitions import predicted_bytes
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import NO_WANDB, SAC, TINY
from tests.unit.data.buffers.test_transitions import frames

Usage = namedtuple("Usage", "total used free")


def only(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every disk have so many free bytes."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 10**12 - free, free))


@pytest.mark.parametrize(("capacity", "between"), [(30, 10), (30, 40), (500, 25), (30, 7), (29, 7), (60, 1)])
def test_a_replay_has_as_many_frames_in_files_as_predicted(capacity: int, between: int, tmp_path: Path) -> None:
    """With the best checkpoint at the worst moment: when none of its frames is in the last one any more."""
    replay, files = Replay(capacity), ReplayFiles(tmp_path / "replay")
    best: set[str] = set()
    most = 0
    for t in range(400 // between):
        replay.extend(frames(between * t, between))
        state = files.save(replay)
        lying = [path.stem.split("-") for path in (tmp_path / "replay").iterdir()]
        most = max(most, sum(int(last) - int(first) for first, last in lying))
        if t == 100 // between:
            best = {name for name, *_ in state["files"]}
        for path in (tmp_path / "replay").iterdir():  # as `prune`, with these two checkpoints
            if path.name not in best | {name for name, *_ in state["files"]}:
                path.unlink()
    predicted = frames_in_files(capacity, 400, between)
    assert most <= predicted <= 2 * most


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "{need} of free disk space ({files} for the replay's files, {weights} for checkpoints)"),
        (["--trainer.enable_checkpointing=false"], None),
        (
            ["--trainer.enable_checkpointing=false", "--data.storage=memmap"],
            "{memmap} of free disk space ({memmap} for data.storage=memmap)",
        ),
    ],
)
def test_a_disk_that_is_too_small_is_one_line_and_no_folder(
    options: list[str],
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_mbrl.data.off_policy.check_memory", lambda *args: None)  # which looks at memmap alone
    only(1000, monkeypatch)
    code = main([*SAC, *options])
    if reason is None:
        assert code == 0
        return
    replay = predicted_bytes(60, 3, 1)
    # Two layers of 8 units: an actor, two critics, their targets and alpha; moments for all but the targets.
    actor, critics = (3 * 8 + 8) + (8 * 8 + 8) + (8 * 2 + 2), 2 * ((4 * 8 + 8) + (8 * 8 + 8) + (8 + 1))
    weights = 3 * 4 * (3 * (actor + critics + 1) + critics)
    text = {"files": replay, "weights": weights, "need": replay + weights, "memmap": predicted_bytes(61, 3, 1)}
    expected = reason.format(**{name: f"{size / 1e6:.1f} MB" for name, size in text.items()})
    assert code == 2
    error = capfd.readouterr().err
    assert error.startswith("error: --trainer.default_root_dir=runs/sac/Pendulum-v1/seed0-")
    assert f"expected a folder with {expected}, but there are 0.0 MB" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_resumed_run_has_on_the_disk_is_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"x" * 2_000_000)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").hardlink_to(tmp_path / "run" / "checkpoints" / "last.ckpt")
    only(1_000_000, monkeypatch)
    check_disk(tmp_path / "run", {"checkpoints": 2_900_000})
    with pytest.raises(OptionError, match="but there are 3.0 MB: another folder, or a smaller data.capacity"):
        check_disk(tmp_path / "run", {"checkpoints": 3_900_000})
    with pytest.raises(OptionError, match="but there are 1.0 MB"):
        check_disk(tmp_path / "another" / "run", {"checkpoints": 2_900_000})


def test_a_model_buffer_is_part_of_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an MBPO run leaves behind is within its estimate, and most of it is imagined."""
    monkeypatch.chdir(tmp_path)
    estimates: list[dict[str, int]] = []
    original = OffPolicy.disk_bytes

    def disk_bytes(self: OffPolicy, every_epochs: int | None, world_size: int) -> dict[str, int]:
        estimates.append(original(self, every_epochs, world_size))
        return estimates[-1]

    monkeypatch.setattr(OffPolicy, "disk_bytes", disk_bytes)
    command = ["fit", "--config", "conf/mbpo.yaml", *TINY, "--model.rollout_batch_size=2000", NO_WANDB]
    assert main([*command, "--data.total_frames=40", "--trainer.default_root_dir=run"]) == 0
    (estimate,) = estimates
    size = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_size
    assert 0.5 * estimate["the model's data"] / COPIES < size < sum(estimate.values()) / COPIES + 2_000_000
