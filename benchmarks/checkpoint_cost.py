"""What saving a replay costs, whole and by what is new, against the number of transitions in it.

    python benchmarks/checkpoint_cost.py

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

from lit_mbrl.data.replay import Replay
from lit_mbrl.data.replay_files import ReplayFiles, damaged

OBSERVATION, ACTION, NEW, REPEATS = 17, 6, 5_000, 5


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
        assert damaged(folder, state["files"]) is None
        written.append(middle - start)
        compared.append(time.perf_counter() - middle)
    return statistics.median(written), statistics.median(compared)


def main() -> None:
    """Prints the table."""
    print(
        "| transitions in the replay | whole: seconds | MB | what is new: seconds | MB | its checksum | all checksums |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            replay, files = Replay(size), ReplayFiles(folder)
            for _ in range(size // NEW):
                replay.extend(frames(NEW))
            whole = cost(replay, folder, lambda: save(folder / "whole.ckpt", replay.state_dict()))  # noqa: B023
            (folder / "whole.ckpt").unlink()
            files.save(replay)  # the first checkpoint writes all of it
            new = cost(replay, folder, lambda: save(folder / "last.ckpt", files.save(replay)))  # noqa: B023
            its, every = checksums(folder, files.save(replay))
            cells = [f"{size:,}", f"{whole[0]:.3f}", f"{whole[1]:.1f}", f"{new[0]:.3f}", f"{new[1]:.1f}"]
            print(f"| {' | '.join(cells)} | {its:.4f} | {every:.3f} |", flush=True)


if __name__ == "__main__":
    main()
