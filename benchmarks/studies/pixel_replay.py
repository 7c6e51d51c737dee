"""A replay of pictures on the disk: what it takes of disk and memory, and how fast it serves batches, as it fills.

    python -m benchmarks.studies.pixel_replay --frames 1000000 --folder /somewhere/on/the/disk

Pictures 3 x 64 x 64, episodes of 500 steps, batches of Dreamer's 50 x 50. Memory is the process's own (`RssAnon`) and
what it has of mapped files at that moment (`RssFile`), beyond those at the start; the median of several batches.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.data.buffers.episodes import EpisodeReplay, frame_bytes
from lit_mbrl.envs import Spec
from lit_mbrl.reports.table import table

SPEC = Spec("pictures", 3 * 64 * 64, 6, observation_shape=(3, 64, 64))
EPISODE, BATCH, LENGTH = 500, 50, 50


def main() -> None:
    """Fills a replay, and prints a row for every tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--storage", choices=("memmap", "memory"), default="memmap")
    parser.add_argument("--folder", help="where the file is (default: a temporary folder)")
    parser.add_argument("--batches", type=int, default=20, help="per row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(measure(options.frames, options.storage, Path(folder), options.batches))


def measure(frames: int, storage: str, folder: Path, batches: int) -> str:
    """The table, of a replay whose capacity is `frames`."""
    episode = steps(EPISODE)
    before = memory()
    replay = EpisodeReplay(SPEC, frames, storage="memmap" if storage == "memmap" else "memory", directory=folder)
    rows = [("frames", "disk", "own memory", "mapped files", "storing a frame", f"batch {BATCH} x {LENGTH}", "slowest")]
    for tenth in range(1, 11):
        start, first = time.perf_counter(), replay.written
        while replay.written < frames * tenth // 10:
            replay.extend(episode)
        stored = (time.perf_counter() - start) / max(1, replay.written - first)
        seconds = []
        for _ in range(batches):
            start = time.perf_counter()
            replay.sample(BATCH, LENGTH)
            seconds.append(time.perf_counter() - start)
        own, mapped = (now - then for now, then in zip(memory(), before, strict=True))
        disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        rows.append(
            (
                f"{len(replay):,}",
                f"{disk / 1e9:.2f} GB",
                f"{own / 1e6:.0f} MB",
                f"{mapped / 1e6:.0f} MB",
                f"{1e6 * stored:.0f} us",
                f"{1e3 * statistics.median(seconds):.1f} ms",
                f"{1e3 * max(seconds):.1f} ms",
            )
        )
    predicted = f"{frames:,} frames, {frames * frame_bytes(SPEC) / 1e9:.2f} GB predicted, {storage}"
    return f"{predicted}\n\n{table(rows, right=range(7))}"


def steps(count: int) -> TensorDictBase:
    """An episode of random pictures, `[1, count]`; it ends with the last."""
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, count + 1, 3, 64, 64), np.uint8))
    truncated = torch.zeros(1, count, 1, dtype=torch.bool)
    truncated[:, -1] = True
    following = {
        "observation": pictures[:, 1:],
        "reward": torch.rand(1, count, 1),
        "terminated": torch.zeros_like(truncated),
        "truncated": truncated,
    }
    root = {"observation": pictures[:, :-1], "action": torch.rand(1, count, SPEC.action_dim)}
    return TensorDict(root | {"next": following}, [1, count])


def memory() -> tuple[int, int]:
    """Bytes of this process that are its own, and those of mapped files (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(lines[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile"))
    return own, mapped


if __name__ == "__main__":
    main()
