"""Drawing a batch takes the same time whatever the capacity, and memory is what was said before.

    python -m benchmarks.studies.model_buffer

Rows of Hopper's sizes (11 observations, 3 actions). Sizes take turns, so that what else the machine does hits them all.
"""

from __future__ import annotations

import statistics
import time

import torch
from tensordict import TensorDict

from lit_mbrl.data.buffers.imagined import ModelBuffer, SegmentedBuffer

CAPACITIES = (1_000, 10_000, 100_000, 1_000_000)
SEGMENT, BATCH, TURNS, DRAWS = 1_000, 244, 100, 20


def frames(count: int) -> TensorDict:
    """Random transitions with weights."""
    following = {
        "observation": torch.randn(count, 11),
        "reward": torch.randn(count, 1),
        "terminated": torch.rand(count, 1) < 0.1,
    }
    rows = {"observation": torch.randn(count, 11), "action": torch.rand(count, 3), "next": following}
    return TensorDict(rows | {"weight": torch.rand(count, 1)}, [count])


def filled(capacity: int, segmented: bool) -> ModelBuffer:
    """A full buffer."""
    buffer = SegmentedBuffer(capacity // SEGMENT, SEGMENT, 11, 3) if segmented else ModelBuffer(capacity, 11, 3)
    part = frames(SEGMENT)
    for _ in range(capacity // SEGMENT):
        buffer.extend(part if segmented else part.exclude("weight"))
    return buffer


def main() -> None:
    """Prints microseconds per draw: the fastest turn, which other programs have disturbed least, and the median."""
    torch.manual_seed(0)
    for segmented in (False, True):
        buffers = {capacity: filled(capacity, segmented) for capacity in CAPACITIES}
        times: dict[int, list[float]] = {capacity: [] for capacity in CAPACITIES}
        for _ in range(TURNS):
            for capacity, buffer in buffers.items():
                start = time.perf_counter()
                for _ in range(DRAWS):
                    buffer.sample(BATCH)
                times[capacity].append((time.perf_counter() - start) / DRAWS * 1e6)
        print("one segment" if segmented else "all rows", f"(a batch of {BATCH})")
        for capacity, values in times.items():
            fastest, median = min(values), statistics.median(values)
            size = buffers[capacity].nbytes / 1e6
            print(f"  {capacity:>9,} transitions  {size:6.1f} MB  {fastest:6.0f} us  median {median:.0f}")


if __name__ == "__main__":
    main()
