"""Measures the cost of saving a replay, whole and by new transitions, against the number of transitions in it.

    python -m benchmarks.studies.checkpoint_cost

HalfCheetah's sizes (17 observations, 6 actions) and 5000 new transitions per checkpoint, an epoch of `conf/base.yaml`'s
kind. Every time includes the flush to the disk; the median of several checkpoints.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from lit_mbrl.data.buffers.files import ReplayFiles, find_corrupt
from lit_mbrl.data.buffers.transitions import Replay

OBSERVATION, ACTION, NEW, REPEATS = 17, 6, 5_000, 5
SIZES = (10_000, 100_000, 1_000_000)


def frames(count: int) -> TensorDict:
    """Random transitions `[1, count]`."""
    return TensorDict(
        {
            "observation": torch.randn(1, count, OBSERVATION),
            "action": torch.rand(1, count, ACTION),
            "next": {
                "observation": torch.randn(1, count, OBSERVATION),
                "reward": torch.randn(1, count, 1),
                "terminated": torch.zeros(1, count, 1, dtype=torch.bool),
                "truncated": torch.zeros(1, count, 1, dtype=torch.bool),
            },
        },
        [1, count],
    )


def save(path: Path, content: object) -> None:
    """A file, down to the disk."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def cost(replay: Replay, folder: Path, save_one: Callable[[], None]) -> tuple[float, float]:
    """Seconds and megabytes of a checkpoint after `NEW` more transitions."""
    seconds, sizes = [], []
    for _ in range(REPEATS):
        replay.extend(frames(NEW))
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        start = time.perf_counter()
        save_one()
        seconds.append(time.perf_counter() - start)
        changed = [path for path in folder.iterdir() if before.get(path) != path.stat().st_mtime_ns]
        sizes.append(sum(path.stat().st_size for path in changed) / 1e6)
    return statistics.median(seconds), statistics.median(sizes)


def checksums(folder: Path, state: dict[str, Any]) -> tuple[float, float]:
    """Seconds for the checksums of a checkpoint's new frames, and for comparing those of all frames at a resume."""
    newest = (folder / state["files"][-1][0]).read_bytes()
    written, compared = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        zlib.crc32(newest)
        middle = time.perf_counter()
        assert find_corrupt(folder, state["files"]) is None
        written.append(middle - start)
        compared.append(time.perf_counter() - middle)
    return statistics.median(written), statistics.median(compared)


def resume(replay: Replay, files: ReplayFiles) -> float:
    """Seconds to restore a replay of the same capacity from the files that hold it."""
    state, seconds = files.save(replay), []
    for _ in range(3):
        empty = Replay(replay.capacity)
        start = time.perf_counter()
        ReplayFiles(files.folder).load(empty, state)
        seconds.append(time.perf_counter() - start)
        assert len(empty) == len(replay)
    return statistics.median(seconds)


def measure(size: int) -> list[float]:
    """Of a replay of so many transitions.

    Returns:
        Seconds and MB of the whole, of what is new, seconds of a resume, of the new and of all checksums.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        replay, files = Replay(size), ReplayFiles(folder)
        for _ in range(size // NEW):
            replay.extend(frames(NEW))
        whole = cost(replay, folder, lambda: save(folder / "whole.ckpt", replay.state_dict()))
        (folder / "whole.ckpt").unlink()
        files.save(replay)  # the first checkpoint writes all of it
        new = cost(replay, folder, lambda: save(folder / "last.ckpt", files.save(replay)))
        return [*whole, *new, resume(replay, files), *checksums(folder, files.save(replay))]


def main() -> None:
    """Prints the table."""
    print(
        "| transitions in the replay | whole: seconds | MB | what is new: seconds | MB | resume: seconds "
        "| its checksum | all checksums |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        digits = (3, 1, 3, 1, 3, 4, 3)
        cells = [f"{value:.{digit}f}" for value, digit in zip(measure(size), digits, strict=True)]
        print(f"| {size:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
