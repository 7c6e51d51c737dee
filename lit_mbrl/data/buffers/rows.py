"""A TorchRL storage and a TorchRL writer for a ring of frames that are collected a few at a time.

TorchRL's own `extend` of a single frame takes longer than a simulator's step, and its `sample` three times as long as
the copies that it makes: TensorDicts are indexed, checked and moved between devices on the way. In main memory none of
that is needed, so the storage keeps a column per entry and the writer fills slices of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Storage, Writer

from lit_mbrl.data.buffers.memmap_array import MemmapArray

Rows = list[dict[str, np.ndarray]]  # of the root of a TensorDict and of its "next", `[n, ...]` each


class RowStorage(Storage):
    """Rows of the root and of `"next"` of a TensorDict, in main memory or in files; the first ones say which entries.

    Args:
        capacity: rows kept.
        keys: entries that are kept.
        directory: of the files; None: in main memory.
    """

    ndim = 1
    device = torch.device("cpu")

    def __init__(self, capacity: int, keys: tuple[Any, ...], directory: Path | None = None) -> None:
        super().__init__(capacity)
        self._keys = (
            [key for key in keys if isinstance(key, str)],
            [key[1] for key in keys if not isinstance(key, str)],
        )
        self._directory = directory
        self._columns: list[dict[str, MemmapArray]] = []
        self._size = 0
        self._seen: tuple[TensorDictBase | None, Rows] = (None, [])

    def __len__(self) -> int:
        return self._size

    def contains(self, item: int) -> bool:
        """Returns whether there is a row in that slot."""
        return 0 <= item < self._size

    def rows(self, frames: TensorDictBase) -> Rows:
        """Returns what `set` takes, from frames `[num_envs, T]`: `[T * num_envs, ...]`, in the order of time.

        A collector fills the tensors of one locked TensorDict again and again: arrays that show them are kept.
        """
        seen, known = self._seen
        if seen is frames and frames.is_locked:
            return known
        parts = [part if part.ndim == 1 else part.transpose(0, 1) for part in (frames, frames["next"])]
        own = [{key: part.get(key).numpy() for key in keys} for part, keys in zip(parts, self._keys, strict=True)]
        count = frames.numel()
        rows = [{key: value.reshape(count, *value.shape[frames.ndim :]) for key, value in part.items()} for part in own]
        shown = all(np.shares_memory(a[key], b[key]) for a, b in zip(own, rows, strict=True) for key in a)
        self._seen = (frames, rows) if shown and frames.is_locked else (None, [])
        return rows

    def set(self, cursor: slice | Tensor | int, data: Any, *, set_cursor: bool = True) -> None:
        """Writes rows into slots; where `set_cursor`, they are new ones.

        Args:
            data: `Rows`, or a TensorDict `[n]`.
        """
        rows = self.rows(data) if isinstance(data, TensorDictBase) else data
        if not self._columns:
            self._columns = [self._make(part, name) for part, name in zip(rows, ("", "next"), strict=True)]
        for columns, part in zip(self._columns, rows, strict=True):
            for key, column in columns.items():
                column.write(cursor, part[key])
        if set_cursor:
            self._size = min(self._size + len(next(iter(rows[0].values()))), self.max_size)

    def _make(self, rows: dict[str, np.ndarray], name: str) -> dict[str, MemmapArray]:
        folder = None if self._directory is None else self._directory / name
        return {
            key: MemmapArray(self.max_size, row.shape[1:], row.dtype, folder and folder / f"{key}.memmap")
            for key, row in rows.items()
        }

    def get(self, index: Any) -> TensorDictBase:
        """Returns copies of the rows at `index` `[...]`, `[...]`; views of a slice of those that are there."""
        if isinstance(index, slice):
            index = slice(*index.indices(self._size))
            parts = [{key: column.tensor[index] for key, column in part.items()} for part in self._columns]
            shape = [len(range(index.start, index.stop, index.step))]
        else:
            index = torch.as_tensor(index)
            shape, flat = index.shape, index.reshape(-1)
            parts = [{key: column.read(flat) for key, column in part.items()} for part in self._columns]
            if index.ndim != 1:
                parts = [{key: value.view(*shape, *value.shape[1:]) for key, value in part.items()} for part in parts]
        root, following = parts or ({}, {})
        return TensorDict(root | {"next": TensorDict(following, shape)}, shape)

    def state_dict(self) -> dict[str, Any]:
        """The rows that are there, in the order of their slots."""
        return {"rows": [{key: column.tensor[: self._size] for key, column in part.items()} for part in self._columns]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._empty()
        if state_dict["rows"]:
            rows = [{key: value.numpy() for key, value in part.items()} for part in state_dict["rows"]]
            self.set(slice(0, len(next(iter(rows[0].values())))), rows)

    def _empty(self) -> None:
        self._size = 0


class RingWriter(Writer):
    """Writes frames in the order of time around the end of a `RowStorage`.

    Attributes:
        cursor: slot that the next frame is written to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cursor = 0

    def extend(self, data: TensorDictBase) -> Tensor:
        """Writes frames `[num_envs, T]`, or `[n]`, and returns their slots."""
        storage: Any = self._storage
        rows, count, start = storage.rows(data), data.numel(), self.cursor
        for done, slot, size in _pieces(count, start, storage.max_size):
            part = rows if size == count else [{k: v[done : done + size] for k, v in part.items()} for part in rows]
            storage.set(slice(slot, slot + size), part)
        self.cursor = (start + count) % storage.max_size
        return torch.arange(start, start + count) % storage.max_size

    def add(self, data: TensorDictBase) -> int:
        """Writes one frame and returns its slot."""
        return int(self.extend(data.reshape(1)))

    def _empty(self, empty_write_count: bool = True) -> None:
        self.cursor = 0

    def state_dict(self) -> dict[str, Any]:
        """The cursor."""
        return {"cursor": self.cursor}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.cursor = state_dict["cursor"]

    def dumps(self, path: Any) -> None:
        """Writes the cursor into a folder."""
        Path(path).mkdir(exist_ok=True)
        (Path(path) / "writer.json").write_text(json.dumps(self.state_dict()))

    def loads(self, path: Any) -> None:
        """Reads what `dumps` wrote."""
        self.load_state_dict(json.loads((Path(path) / "writer.json").read_text()))


def _pieces(count: int, start: int, capacity: int) -> list[tuple[int, int, int]]:
    """Cuts `count` rows from slot `start` on at the end of the ring: rows done before, first slot and size of each."""
    pieces, done = [], 0
    while done < count:
        slot = (start + done) % capacity
        size = min(count - done, capacity - slot)
        pieces.append((done, slot, size))
        done += size
    return pieces
