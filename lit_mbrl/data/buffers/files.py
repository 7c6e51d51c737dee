"""A replay on the disk, each frame written once: a checkpoint costs what is new, not what the replay holds.

Frames lie in files that never change, `<first>-<last>.pt` with the frames number first to last - 1 of the run, and a
checkpoint names the files that it needs. So several checkpoints (`last`, `best`) share them, and a ring that overwrites
its oldest frames leaves theirs alone. `docs/checkpoints.md` has the format.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_mbrl.data.buffers.episodes import EpisodeReplay
from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.utils.files import checksum, flush

# Name, number of the first frame, number after the last one, bytes, CRC-32.
File = tuple[str, int, int, int, int]
_NAME = re.compile(r"\d+-\d+(-\d+)?\.pt")


class ReplayFiles:
    """The files of a replay in a folder beside the checkpoints.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[File] = []
        self._known: dict[tuple[int, int, int], set[str]] = {}

    def save(self, replay: Replay | EpisodeReplay) -> dict[str, Any]:
        """Writes the frames that are not there yet, down to the disk, and returns what a checkpoint needs to know.

        Raises:
            OSError: if they cannot be written; the files that are there stay as they are.
        """
        oldest = replay.written - len(replay)
        kept = [file for file in self._files if file[2] > oldest]
        if not all((self.folder / name).is_file() for name, *_ in kept):
            kept = []  # somebody has removed some
        start = kept[-1][2] if kept else oldest
        if start < replay.written:
            self.folder.mkdir(exist_ok=True)
            for first in range(start, replay.written, replay.piece):
                last = min(first + replay.piece, replay.written)
                kept.append(self._write(first, last, replay.numbered(first, last)))
            flush(self.folder)
        self._files = kept
        return replay.position() | {"files": [list(file) for file in kept]}

    def load(self, replay: Replay | EpisodeReplay, state: Mapping[str, Any]) -> None:
        """Restores an empty replay from what `save` returned, and goes on from there: see `find_corrupt`."""
        files: list[File] = [tuple(file) for file in state["files"]]
        cache: dict[str, dict[str, Tensor]] = {}

        def read(first: int, last: int) -> dict[str, Tensor]:
            parts = []
            for name, begin, end, *_ in files:
                if begin < last and end > first:
                    if name not in cache:
                        cache.clear()  # they are read in order, so one at a time is enough
                        cache[name] = torch.load(self.folder / name, weights_only=True, mmap=True)
                    cut = slice(max(first - begin, 0), last - begin)
                    parts.append({key: value[cut] for key, value in cache[name].items()})
            return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

        replay.restore(state, read)
        self._files = files

    def prune(self) -> None:
        """Removes files of frames that no checkpoint beside the folder needs; none if one of those cannot be read."""
        if not self.folder.is_dir():
            return
        needed = {name for name, *_ in self._files}
        before, self._known = self._known, {}
        for checkpoint in self.folder.parent.glob("*.ckpt"):
            status = checkpoint.stat()
            key = status.st_ino, status.st_mtime_ns, status.st_size
            if key in before:
                self._known[key] = before[key]
            else:
                try:
                    content = torch.load(checkpoint, weights_only=True, mmap=True, map_location="cpu")
                # What torch.load raises depends on which of the file's bytes are wrong.
                except Exception:
                    return
                self._known[key] = {name for name, *_ in files_of(content)}
            needed |= self._known[key]
        for file in self.folder.iterdir():
            # Whatever else is in the folder is somebody else's.
            if file.name not in needed and _NAME.fullmatch(file.name) and not file.is_dir():
                file.unlink()

    def _write(self, first: int, last: int, frames: dict[str, Tensor]) -> File:
        buffer = io.BytesIO()
        torch.save(frames, buffer)
        content = buffer.getbuffer()
        # Another future of the same run may have files of the same frames, which its checkpoints still need.
        names = (f"{first}-{last}{suffix}.pt" for suffix in _suffixes())
        name = next(name for name in names if not (self.folder / name).exists())
        path = self.folder / name
        try:
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name, first, last, content.nbytes, zlib.crc32(content)


def files_of(checkpoint: Mapping[str, Any]) -> Iterator[File]:
    """The replay files that a checkpoint needs."""
    for part in checkpoint.values():
        if not isinstance(part, dict):
            continue
        for own in part.get("ranks", [part]):  # one for each of several devices
            if isinstance(own.get("replay"), dict):
                yield from (tuple(file) for file in own["replay"].get("files", ()))


def find_corrupt(folder: Path, files: Iterable[File]) -> Path | None:
    """Returns the first of these files in the folder that is missing, torn or changed since it was written."""
    for name, _, _, size, content in files:
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or checksum(path) != content:
            return path
    return None


def _suffixes() -> Iterator[str]:
    yield ""
    count = 2
    while True:
        yield f"-{count}"
        count += 1
