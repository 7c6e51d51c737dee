"""Replay of real transitions: one TorchRL storage, read as single transitions and as sequences.

Frames of `num_envs` environments side by side lie interleaved in time-major order, so the successor of slot `i` is slot
`i + num_envs` (modulo the capacity):

    slot   0    1    2    3    4    5          (num_envs = 2)
    frame  e0t0 e1t0 e0t1 e1t1 e0t2 e1t2 ...

Observations are stored raw; whoever samples normalises with today's statistics.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers.samplers import RandomSampler

from lit_mbrl.data.buffers.holdout import split_starts
from lit_mbrl.data.buffers.ring import Ring, named, nested
from lit_mbrl.data.buffers.storage_view import StorageView
from lit_mbrl.utils.errors import OptionError

Storage = Literal["memory", "memmap"]
STORED = (
    "observation",
    "action",
    ("next", "observation"),
    ("next", "reward"),
    ("next", "terminated"),
    ("next", "truncated"),
)
_TRIES = 100


class Replay(Ring):
    """A ring of transitions with uniform sampling of transitions and of sequences.

    | key | shape | dtype |
    |---|---|---|
    | `"observation"` | `[O]` | float32 |
    | `"action"` | `[A]` | float32, in [-1, 1] |
    | `("next", "observation")` | `[O]` | float32 |
    | `("next", "reward")` | `[1]` | float32 |
    | `("next", "terminated")` | `[1]` | bool, the task ended: no bootstrap |
    | `("next", "truncated")` | `[1]` | bool, a time limit: bootstrap |

    Args:
        capacity: transitions kept; rounded down to a multiple of `num_envs`.
        num_envs: environments whose frames are interleaved.
        storage: `"memory"` or `"memmap"` (files in `directory`, for what does not fit into memory).
        directory: folder of the memmap files; a temporary one if None.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int = 1,
        storage: Literal["memory", "memmap"] = "memory",
        directory: str | Path | None = None,
    ) -> None:
        self.num_envs = num_envs
        capacity -= capacity % num_envs
        if storage == "memory":
            backing = LazyTensorStorage(capacity)
        else:
            # A resumed run writes over its files: the frames of its checkpoint are in the checkpoint.
            folder = None if directory is None else str(directory)
            backing = LazyMemmapStorage(capacity, scratch_dir=folder, existsok=True)
        self.buffer = ReplayBuffer(storage=backing, sampler=RandomSampler())
        super().__init__(capacity)
        self._episode_end = torch.zeros(self.capacity, dtype=torch.bool)
        self._ends = self._episode_end.numpy()
        self._rows: StorageView | None = None

    def frames(self) -> TensorDictBase:
        """All frames that are there, `[len(self)]`, in slot order."""
        return self.buffer[: len(self)]

    @property
    def cursor(self) -> int:
        """Slot that the next frame is written to."""
        return int(self.buffer.writer._cursor)

    @cursor.setter
    def cursor(self, slot: int) -> None:
        self.buffer.writer._cursor = slot

    def extend(self, frames: TensorDictBase) -> None:
        """Appends frames `[num_envs, T]`."""
        if self._rows is None:
            self._extend_buffer(frames.transpose(0, 1).reshape(-1))
            self._rows = StorageView(self.buffer.storage._storage)
        else:
            self._write(self._rows, frames)
        self.written += frames.numel()

    def _extend_buffer(self, frames: TensorDictBase) -> None:
        """Appends frames `[n]` by way of TorchRL, which makes room for all at the first ones."""
        slots = self.buffer.extend(frames)
        self._size = len(self.buffer)
        self._episode_end[slots] = (frames["next", "terminated"] | frames["next", "truncated"]).view(-1)

    def _write(self, rows: StorageView, frames: TensorDictBase) -> None:
        """The same for frames `[num_envs, T]`, straight into the storage."""
        values = rows.read(frames)
        ends = (values[1]["terminated"] | values[1]["truncated"]).reshape(-1)
        count, done, cursor = len(ends), 0, self.cursor
        while done < count:  # around the end of the ring
            piece = min(count - done, self.capacity - cursor)
            cut = slice(done, done + piece)
            rows.write(cursor, [{key: value[cut] for key, value in part.items()} for part in values])
            self._ends[cursor : cursor + piece] = ends[cut]
            done, cursor = done + piece, (cursor + piece) % self.capacity
        # What TorchRL's writer and storage would have noted.
        self._size = min(self._size + count, self.capacity)
        self.buffer.writer._cursor = cursor
        self.buffer.writer._write_count += count
        self.buffer.storage._len = self._size

    def sample_transitions(self, count: int) -> TensorDictBase:
        """Transitions drawn uniformly with replacement, `[count]`."""
        if self._rows is None:
            raise RuntimeError("the replay is empty")
        return self._rows.gather(torch.randint(self._size, (count,)))

    def sample_sequences(self, count: int, length: int) -> TensorDictBase:
        """Sequences of consecutive transitions of one episode, uniform over all that are there, `[count, length]`.

        The last transition of a sequence may end its episode: its `("next", "observation")` still belongs to it.

        Raises:
            OptionError: if the replay holds no sequence of that length.
        """
        slots = self._sequence_slots(count, length)
        assert self._rows is not None  # there is a sequence
        return self._rows.gather(slots)

    def _sequence_slots(self, count: int, length: int) -> Tensor:
        # Rejection keeps the draw exactly uniform over the valid starts, in time independent of the capacity.
        size = len(self)
        oldest = self.cursor if size == self.capacity else 0
        starts = size - (length - 1) * self.num_envs
        steps = np.arange(length) * self.num_envs
        accepted: list[np.ndarray] = []
        missing = count
        for _ in range(_TRIES if starts > 0 else 0):
            first = torch.randint(starts, (missing + missing // 4 + 8,)).numpy()
            slots = first[:, None] + steps
            if oldest:  # or no sequence goes around the end of the ring
                slots = (slots + oldest) % self.capacity
            slots = slots[~self._ends[slots[:, :-1]].any(1)]
            accepted.append(slots)
            missing -= len(slots)
            if missing <= 0:
                return torch.from_numpy(accepted[0] if len(accepted) == 1 else np.concatenate(accepted))[:count]
        raise OptionError(
            "model.horizon",
            length,
            f"episodes of at least {length} steps in the replay, which holds {size} transitions and no such sequence "
            "(raise data.learning_starts or lower the horizon)",
        )

    def split_sequences(self, length: int, ratio: float, most: int) -> tuple[TensorDictBase, TensorDictBase]:
        """All sequences `[n, length]` of two parts that share no observation: one to learn from, one to hold out.

        Args:
            ratio: share of the transitions to hold out.
            most: transitions to hold out at most.

        Raises:
            OptionError: if there are no two separate sequences of that length.
        """
        size = len(self)
        oldest = self.cursor if size == self.capacity else 0
        slots = ((oldest + np.arange(size)) % self.capacity).reshape(-1, self.num_envs)
        ends = self._ends[slots]
        ends[-1:] = True  # what follows there is another environment's
        slots, steps = slots.T.reshape(-1), np.arange(length)
        starts = split_starts(ends.T.reshape(-1), length, ratio, most)
        assert self._rows is not None  # there are sequences
        training, holdout = (self._rows.gather(torch.from_numpy(slots[first[:, None] + steps])) for first in starts)
        return training, holdout

    def first_observations(self) -> Tensor:
        """The observations that episodes began with, of all episodes whose beginning is there, `[n, O]`."""
        numbers = np.arange(self.oldest, self.written)
        before = numbers - self.num_envs
        began = before < 0
        known = before >= self.oldest
        began[known] = self._ends[self.slots(before[known])]
        return self.buffer[torch.from_numpy(self.slots(numbers[began]))]["observation"]

    def truncate_running_episodes(self, envs: Iterable[int] | None = None) -> None:
        """Marks the newest frame of each environment as truncated, where new episodes start out of turn.

        Args:
            envs: of these environments only.
        """
        for env in range(self.num_envs) if envs is None else envs:
            back = self.num_envs - env  # frames of one time step lie in the order of the environments
            slot = (self.cursor - back) % self.capacity
            if back <= len(self) and not self._episode_end[slot]:
                self._mark(slot)
                self.marks.append(self.written - back)

    # ------------------------------------------------------------------ checkpoint
    def _read(self, slots: Tensor) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in named(self.buffer[slots]).items()}

    def _restore_rows(self, slot: int, rows: dict[str, Tensor]) -> None:
        self._extend_buffer(nested(rows))  # which goes on where it has ended

    def _mark(self, slot: int) -> None:
        # Through a view: `storage.set` would count the frame as a new one.
        self.buffer.storage[slot : slot + 1]["next", "truncated"].fill_(True)
        self._episode_end[slot] = True

    def _restored(self) -> None:
        if len(self):
            self._rows = StorageView(self.buffer.storage._storage)


def predicted_bytes(capacity: int, observation_dim: int, action_dim: int) -> int:
    """Bytes of a full replay: two observations, action and reward in float32, two flags and the episode ends."""
    return capacity * (4 * (2 * observation_dim + action_dim + 1) + 3)


def check_memory(
    size: int, storage: Literal["memory", "memmap"], directory: str | Path, option: str = "data.capacity"
) -> None:
    """Raises `OptionError` about `option` if so many bytes do not fit into memory, or onto the disk for `"memmap"`."""
    if storage == "memory":
        free, where = psutil.virtual_memory().available, "memory"
    else:
        free, where = shutil.disk_usage(directory).free, "disk space"
    if size > free:
        to_disk = " or data.storage=memmap" if storage == "memory" and option == "data.capacity" else ""
        advice = f"a smaller {option}{to_disk}"
        raise OptionError(option, f"{size / 1e9:.1f} GB", f"at most the free {where}, {free / 1e9:.1f} GB: {advice}")
