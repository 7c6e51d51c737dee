"""Checkpoint and resume against the size of the replay, and against the seconds of training between two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.pairs import number
from benchmarks.harness.report import Table
from benchmarks.harness.settings import Settings
from benchmarks.studies.checkpoint_cost import NEW, SIZES, measure


def run(settings: Settings) -> Iterator[Table]:
    """Returns the output of `python -m benchmarks.studies.checkpoint_cost`."""
    print("checkpoints", flush=True)
    title = f"Checkpoints of HalfCheetah's sizes, {NEW:,} new transitions each: medians, flushed to the disk"
    header = [
        "transitions",
        "all of it: s",
        "MB",
        "what is new: s",
        "MB",
        "resume: s",
        "its checksum: s",
        "all checksums: s",
    ]
    table = Table("checkpoint", title, header)
    for size in (NEW, 2 * NEW, 3 * NEW) if settings.quick else SIZES:
        values = measure(size)
        table.rows.append([f"{size:,}", *map(number, values)])
        table.raw[str(size)] = values
    yield table
