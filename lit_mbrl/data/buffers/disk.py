"""Computes a run's disk space before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lit_mbrl.utils.errors import require

COPIES = 3  # of a checkpoint: `last`, `best`, and the next one while it is written


def frames_in_files(capacity: int, frames: int, between: int) -> int:
    """Frames that lie in the files of a replay (`files.py`) at most.

    Two checkpoints (`last` and `best`) may have a replay each, a file goes only with the last of its frames, and the
    new ones are written before any goes. All frames of the run are an upper limit.

    Args:
        capacity: of the replay.
        frames: of the whole run.
        between: frames from one checkpoint to the next.
    """
    return min(frames, 2 * capacity + 3 * between)


def check_disk(folder: Path, needed: Mapping[str, int]) -> None:
    """Raises `OptionError` if a run folder has no room for what a run is going to write there.

    The checkpoints and the replay that are in the folder count as room: a resumed run removes them or writes over them.

    Args:
        folder: the run folder, there or not.
        needed: bytes, by what they are for.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free, total = shutil.disk_usage(there).free + _own(folder), sum(needed.values())
    parts = ", ".join(f"{_size(size)} for {name}" for name, size in needed.items() if size)
    require(
        total <= free,
        "trainer.default_root_dir",
        folder,
        f"a folder with {_size(total)} of free disk space ({parts}), but there are {_size(free)}: another folder, or a "
        "smaller data.capacity",
    )


def _own(folder: Path) -> int:
    files = [
        path.stat() for name in ("checkpoints", "replay") for path in folder.glob(f"{name}/**/*") if path.is_file()
    ]
    return sum({status.st_ino: status.st_blocks * 512 for status in files}.values())  # `best` may be a link to `last`


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
