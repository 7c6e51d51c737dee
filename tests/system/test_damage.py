"""Torn files and full disks: one line, and the last good state is kept and used."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.callbacks import Checkpoint
from tests.helpers.command_line import SAC, load, rows, same

GO_ON = [*SAC, "--trainer.default_root_dir=run", "--ckpt_path=last"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: 60 steps, evaluations at 40 and 60."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*SAC, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


@pytest.fixture
def halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the first 40 steps, whose `best.ckpt` is its `last.ckpt`."""
    monkeypatch.chdir(tmp_path)
    assert main([*SAC, "--trainer.default_root_dir=run", "--trainer.max_epochs=1"]) == 0
    return tmp_path / "run" / "checkpoints"


def tear(path: Path) -> None:
    """Leaves half of a file, and none of the file that it shares its content with."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    """Changes one bit of the largest tensor, and none of the file that this one shares its content with."""
    with zipfile.ZipFile(path) as archive:
        tensors = [record for record in archive.infolist() if "/data/" in record.filename]
        largest = max(tensors, key=lambda record: record.file_size)
        tensor = archive.read(largest)
    content = bytearray(path.read_bytes())
    path.unlink()
    content[content.index(tensor, largest.header_offset)] ^= 16
    path.write_bytes(content)


def assert_finished_like(whole: Path, folder: Path) -> None:
    ours, theirs = (load(path / "checkpoints" / "last.ckpt") for path in (folder, whole))
    assert same(ours["state_dict"], theirs["state_dict"])
    assert same(ours["optimizer_states"], theirs["optimizer_states"])
    assert same(ours["OffPolicy"] | {"replay": 0}, theirs["OffPolicy"] | {"replay": 0})
    assert same(ours["OffPolicy"]["replay"], theirs["OffPolicy"]["replay"])
    assert rows(folder) == rows(whole)


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign", "empty"])
def test_a_damaged_last_checkpoint_is_replaced_by_the_best(
    damage: str, halfway: Path, whole: Path, capfd: pytest.CaptureFixture
) -> None:
    if damage == "flipped":
        flip_a_bit(halfway / "last.ckpt")
        load(halfway / "last.ckpt")  # torch.load sees nothing
    else:
        tear(halfway / "last.ckpt")
    if damage in ("foreign", "empty"):
        (halfway / "last.ckpt").write_bytes(b"something else" if damage == "foreign" else b"")
    capfd.readouterr()
    assert main(GO_ON) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: run/checkpoints/last.ckpt: expected a checkpoint, but this file is damaged or something else; going "
        "on from run/checkpoints/best.ckpt"
    ]
    assert_finished_like(whole, halfway.parent)


def test_nothing_whole_is_one_line(halfway: Path, capfd: pytest.CaptureFixture) -> None:
    for name in ("last", "best"):
        tear(halfway / f"{name}.ckpt")
    capfd.readouterr()
    assert main(GO_ON) == 2
    assert capfd.readouterr().err == (
        "error: --ckpt_path=run/checkpoints/last.ckpt: expected a checkpoint, but this file is damaged or something "
        "else\n"
    )


@pytest.mark.parametrize("damage", [Path.unlink, tear, flip_a_bit])
def test_a_damaged_replay_is_told_and_evaluation_does_without(
    damage: Callable[[Path], None], halfway: Path, capfd: pytest.CaptureFixture
) -> None:
    (file,) = (halfway / "replay").iterdir()
    damage(file)
    capfd.readouterr()
    assert main(GO_ON) == 2
    assert capfd.readouterr().err == (
        "error: --ckpt_path=run/checkpoints/last.ckpt: expected a checkpoint with its replay, but "
        f"run/checkpoints/replay/{file.name} is missing or damaged\n"
    )
    assert main(["validate", "--ckpt_path=run/checkpoints/last.ckpt"]) == 0


def test_a_bit_flipped_in_the_newest_frames_gives_way_to_the_checkpoint_before(
    halfway: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Checkpoint, "_improved", lambda self, trainer: False)  # `best.ckpt` stays at 40 steps
    assert main([*GO_ON, "--data.total_frames=60"]) == 0
    flip_a_bit(halfway / "replay" / "40-60.pt")
    capfd.readouterr()
    assert main(GO_ON) == 0
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning")] == [
        "warning: run/checkpoints/last.ckpt: expected a checkpoint with its replay, but "
        "run/checkpoints/replay/40-60.pt is missing or damaged; going on from run/checkpoints/best.ckpt"
    ]
    assert_finished_like(whole, halfway.parent)
    assert sorted(os.listdir(halfway / "replay")) == ["0-40.pt", "40-60-2.pt"]


@pytest.mark.parametrize("target", ["40-60.pt", "last.ckpt.tmp", "metrics.csv"])
def test_a_full_disk_is_one_line_and_the_run_can_go_on_later(
    target: str, halfway: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    before = load(halfway / "last.ckpt")
    with monkeypatch.context() as full:
        fill_the_disk(full, target)
        capfd.readouterr()
        code = main(GO_ON)
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert code == 1 and len(lines) == 1
    assert "No space left on device" in lines[0]
    assert "the last good checkpoint is run/checkpoints/last.ckpt (40 env steps)" in lines[0]
    assert same(load(halfway / "last.ckpt"), before)
    assert sorted(os.listdir(halfway)) == ["best.ckpt", "last.ckpt", "replay"]
    assert main(GO_ON) == 0
    assert_finished_like(whole, halfway.parent)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Makes writing to files of that name fail, after they were opened."""
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if self.name == target and mode != "r":
            opened(self, mode, *args, **kwargs).close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    if target.endswith(".tmp"):
        monkeypatch.setattr("lit_mbrl.callbacks.checkpoint.flush", lambda path: flush_without_room(path, target))


def flush_without_room(path: Path, target: str) -> None:
    """A flush that finds no room for one file."""
    if path.name == target:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
