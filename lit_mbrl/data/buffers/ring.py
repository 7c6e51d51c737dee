"""A ring of rows and its checkpoint: what the replays and the buffers of imagined data have in common.

    number   0 1 2 3 4 5 6 ...          of a row, since the start of the run; the newest is `written - 1`
    slot     (cursor - written + number) modulo the capacity; the newest `len(ring)` rows are there

A checkpoint has the rows that are there, the oldest first, under dotted names (`next.reward`), and the position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

PIECE = 100_000  # rows saved or restored at a time, to bound the memory that takes


class Ring:
    """Counts the rows of a ring and saves and restores them; a subclass has the rows.

    Attributes:
        capacity: rows kept.
        cursor: slot that the next row is written to.
        written: rows written since the start of the run.
        marks: numbers of the rows that were marked as truncated after they had been written.
        piece: rows of a file of a checkpoint.
    """

    piece = PIECE

    def __init__(self, capacity: int) -> None:
        self.capacity, self.cursor, self.written = capacity, 0, 0
        self.marks: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def oldest(self) -> int:
        """Number of the oldest row that is there."""
        return self.written - len(self)

    def slots(self, numbers: Any) -> Any:
        """Slots of the rows with these numbers: an integer, or an array or a tensor of them."""
        return (self.cursor - self.written + numbers) % self.capacity

    def _advance(self, count: int) -> None:
        """Counts rows that have been written from the cursor on."""
        self.cursor = (self.cursor + count) % self.capacity
        self.written += count
        self._size = min(self._size + count, self.capacity)

    # ------------------------------------------------------------------ what a subclass says
    def _read(self, slots: Tensor) -> dict[str, Tensor]:
        """Copies of the rows in slots `[n]`, `[n, ...]`, under dotted names."""
        raise NotImplementedError

    def _restore_rows(self, slot: int, rows: dict[str, Tensor]) -> None:
        """Writes what `_read` gave into an empty ring, into slots from this one on."""
        raise NotImplementedError

    def _mark(self, slot: int) -> None:
        """Marks a row as truncated."""

    def _restored(self) -> None:
        """Is called when all rows have been restored."""

    # ------------------------------------------------------------------ checkpoint
    def numbered(self, first: int, last: int) -> dict[str, Tensor]:
        """Copies of the rows number `first` to `last - 1`, `[last - first, ...]`, under dotted names."""
        return self._read(self.slots(torch.arange(first, last)))

    def position(self) -> dict[str, Any]:
        """All that a checkpoint needs besides the rows."""
        self.marks = [mark for mark in self.marks if mark >= self.oldest]
        names = ("capacity", "cursor", "written")
        return {name: getattr(self, name) for name in names} | {"size": len(self), "marks": list(self.marks)}

    def state_dict(self) -> dict[str, Any]:
        """The rows that are there (not the empty capacity), the oldest first, and the position."""
        frames = self.numbered(self.oldest, self.written) if len(self) else {}
        return self.position() | {"frames": frames}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores rows and position into an empty ring; one of a smaller capacity takes the newest rows."""
        frames, oldest = state["frames"], state["written"] - state["size"]
        self.restore(
            state, lambda first, last: {name: value[first - oldest : last - oldest] for name, value in frames.items()}
        )

    def restore(self, position: Mapping[str, Any], read: Callable[[int, int], dict[str, Tensor]]) -> None:
        """Restores an empty ring. With the same capacity every row comes back into its slot: slots are what is sampled.

        Args:
            position: what `position` returned.
            read: gives the rows number `first` to `last - 1`, as `numbered` does.
        """
        written, count = position["written"], min(position["size"], self.capacity)
        turned = position["cursor"] if count == position["size"] == self.capacity else 0
        slot = 0
        # In the order of the slots: the newest `turned` rows lie in the first ones.
        for first, last in ((written - turned, written), (written - count, written - turned)):
            for start in range(first, last, self.piece):
                stop = min(start + self.piece, last)
                self._restore_rows(slot, read(start, stop))
                slot += stop - start
        self.cursor, self.written, self._size = turned or count % max(self.capacity, 1), written, count
        self.marks = [mark for mark in position["marks"] if mark >= self.oldest]
        for mark in self.marks:
            self._mark(int(self.slots(mark)))
        self._restored()


def named(frames: TensorDictBase) -> dict[str, Tensor]:
    """The leaves of a TensorDict under dotted names, in a fixed order."""
    keys = sorted(frames.keys(include_nested=True, leaves_only=True), key=str)
    return {key if isinstance(key, str) else ".".join(key): frames[key] for key in keys}


def nested(rows: Mapping[str, Tensor]) -> TensorDict:
    """The TensorDict `[n]` of leaves under dotted names."""
    frames = TensorDict({}, [len(next(iter(rows.values())))])
    for name, value in rows.items():
        path = tuple(name.split("."))
        frames[path if len(path) > 1 else path[0]] = value
    return frames
