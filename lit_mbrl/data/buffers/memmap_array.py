"""Equal rows of a replay, in memory or in a file that takes none of it."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_mbrl.utils.errors import OptionError

_MANY_BYTES = 256 * 2**20


class MemmapArray:
    """`count` rows of the same shape, with room for all from the start.

    A file is mapped into memory. What is mapped counts as memory of the process until it is given back, so that is done
    every now and then: the pages stay in the system's cache, which makes room as soon as somebody needs it.

    Args:
        count: rows.
        shape: of a row.
        dtype: of a row.
        path: the file; None: in main memory.

    Attributes:
        tensor: all rows.

    Raises:
        OptionError: if the disk has no room for the file.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype, path: Path | None) -> None:
        self._map: mmap.mmap | None = None
        self._touched = 0
        if path is None:
            self._rows = np.zeros((count, *shape), dtype)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = count * int(np.prod(shape)) * dtype.itemsize
            with path.open("w+b") as file:
                _allocate(file.fileno(), size, path)
                self._map = mmap.mmap(file.fileno(), size)
            self._rows = np.frombuffer(self._map, dtype).reshape(count, *shape)
        self.tensor = torch.from_numpy(self._rows)

    def write(self, slots: np.ndarray | slice | int, rows: np.ndarray) -> None:
        """Writes `rows` `[n, ...]` at `slots` `[n]`."""
        self._rows[slots] = rows
        if self._map is not None:
            self._give_back(rows.nbytes)

    def read(self, slots: Tensor) -> Tensor:
        """Copies of the rows at `slots` `[n]`, `[n, ...]`."""
        rows = self.tensor.index_select(0, slots)
        if self._map is not None:
            self._give_back(rows.nbytes)
        return rows

    def _give_back(self, touched: int) -> None:
        self._touched += touched
        if self._map is not None and self._touched > _MANY_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # of a file that is shared: nothing that was written is lost
            self._touched = 0


def _allocate(descriptor: int, size: int, path: Path) -> None:
    """Gives a file its size and, where the file system can, its room on the disk."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
            return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OptionError("data.capacity", f"{size / 1e9:.1f} GB", f"free disk space for {path}") from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    os.ftruncate(descriptor, size)
