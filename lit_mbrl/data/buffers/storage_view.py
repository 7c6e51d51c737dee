"""The tensors of a TorchRL storage, written and read row by row without the work around them.

TorchRL's `extend` of a single frame takes longer than a simulator's step, and its `sample` three times as long as the
copies that it makes: TensorDicts are indexed, checked and moved between devices on the way. A replay in main memory
needs none of that.
"""

from __future__ import annotations

import numpy as np
from tensordict import TensorDict, TensorDictBase
from torch import Tensor


class StorageView:
    """Rows of the root and of `"next"` of a storage's TensorDict, in main memory; what is written lies in the storage.

    Args:
        storage: the storage's TensorDict `[capacity]`, whose leaves lie at the root or in `"next"`.
    """

    def __init__(self, storage: TensorDictBase) -> None:
        # Plain tensors: a memory-mapped one would answer every call by way of its Python class.
        self._parts = [
            {key: value.as_subclass(Tensor) for key, value in part.items() if isinstance(value, Tensor)}
            for part in (storage, storage["next"])
        ]
        self._arrays = [{key: value.numpy() for key, value in part.items()} for part in self._parts]
        self._seen: tuple[TensorDictBase | None, list[dict[str, np.ndarray]]] = (None, [])

    def write(self, first: int, frames: list[dict[str, np.ndarray]]) -> None:
        """Writes rows `first`, `first + 1`, ...; `frames` are those of the root and of `"next"`, `[n, ...]`."""
        for arrays, values in zip(self._arrays, frames, strict=True):
            for key, array in arrays.items():
                value = values[key]
                array[first : first + len(value)] = value

    def read(self, frames: TensorDictBase) -> list[dict[str, np.ndarray]]:
        """Returns what `write` takes, from frames `[num_envs, T]`: `[T * num_envs, ...]`, in the order of time.

        A collector fills the tensors of one locked TensorDict again and again: arrays that show them are kept.
        """
        seen, known = self._seen
        if seen is frames and frames.is_locked:
            return known
        values = [
            {key: _in_time_order(part.get(key).numpy()) for key in arrays}
            for arrays, part in zip(self._arrays, (frames, frames.get("next")), strict=True)
        ]
        parts = (frames, frames.get("next"))
        shown = all(
            np.shares_memory(array, part.get(key).numpy())
            for part, arrays in zip(parts, values, strict=True)
            for key, array in arrays.items()
        )
        self._seen = (frames, values) if shown and frames.is_locked else (None, [])
        return values

    def gather(self, index: Tensor) -> TensorDictBase:
        """Copies of the rows at `index` `[...]`, `[...]`."""
        if index.ndim == 1:
            parts = [{key: rows.index_select(0, index) for key, rows in part.items()} for part in self._parts]
        else:
            flat, shape = index.reshape(-1), index.shape
            parts = [
                {key: rows.index_select(0, flat).view(*shape, *rows.shape[1:]) for key, rows in part.items()}
                for part in self._parts
            ]
        return TensorDict(parts[0] | {"next": TensorDict(parts[1], index.shape)}, index.shape)


def _in_time_order(value: np.ndarray) -> np.ndarray:
    return value.swapaxes(0, 1).reshape(-1, *value.shape[2:])
