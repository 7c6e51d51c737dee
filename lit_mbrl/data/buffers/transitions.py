"""Replay of real transitions: a TorchRL replay buffer, read as single transitions and as sequences.

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
from torchrl.data import RandomSampler, ReplayBuffer
from torchrl.data.replay_buffers import Sampler

from lit_mbrl.data.buffers.holdout import split_starts
from lit_mbrl.data.buffers.ring import Ring, named, nested
from lit_mbrl.data.buffers.rows import RingWriter, RowStorage
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
        directory: folder of the memmap files.
        sampler: TorchRL's sampler that draws transitions; None: uniformly, with replacement.

    Attributes:
        buffer: the TorchRL replay buffer.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int = 1,
        storage: Literal["memory", "memmap"] = "memory",
        directory: str | Path = ".",
        sampler: Sampler | None = None,
    ) -> None:
        self.num_envs = num_envs
        capacity -= capacity % num_envs
        # A resumed run writes over its files: the frames of its checkpoint are in the checkpoint.
        self._storage = RowStorage(capacity, STORED, Path(directory) if storage == "memmap" else None)
        self._writer = RingWriter()
        self.buffer = ReplayBuffer(
            storage=self._storage, writer=self._writer, sampler=sampler or RandomSampler(), collate_fn=lambda rows: rows
        )
        super().__init__(capacity)
        self._ends = np.zeros(capacity, np.bool_)  # whether an episode ends with the frame in a slot

    def __len__(self) -> int:
        return len(self._storage)

    def frames(self) -> TensorDictBase:
        """All frames that are there, `[len(self)]`, in slot order."""
        return self._storage.get(slice(None))

    @property
    def cursor(self) -> int:
        """Slot that the next frame is written to."""
        return self._writer.cursor

    @cursor.setter
    def cursor(self, slot: int) -> None:
        self._writer.cursor = slot

    def extend(self, frames: TensorDictBase) -> None:
        """Appends frames `[num_envs, T]`."""
        slots = self.buffer.extend(frames).numpy()
        following = self._storage.rows(frames)[1]
        self._ends[slots] = (following["terminated"] | following["truncated"])[:, 0]
        self.written += frames.numel()

    def sample_transitions(self, count: int) -> TensorDictBase:
        """Transitions `[count]` as the sampler draws them, by default uniformly with replacement."""
        return self.buffer.sample(count)

    def sample_slots(self, count: int) -> Tensor:
        """Slots `[count]` as the sampler draws them."""
        return torch.as_tensor(self.buffer.sampler.sample(self._storage, count)[0])

    def numbers(self, slots: Tensor) -> Tensor:
        """Numbers of the frames in these slots, which are there."""
        return self.written - 1 - (self.cursor - 1 - slots) % self.capacity

    def windows(self, slots: Tensor, length: int) -> tuple[TensorDictBase, Tensor]:
        """The frames in slots `[n]` and those after them, `[n, length]`.

        Returns:
            The frames, and which of them are of the episode of the first, `[n, length]`, True for the first. In the
            place of those that have not been collected yet is the first once more.
        """
        first = self.numbers(slots).unsqueeze(1)
        numbers = first + torch.arange(length) * self.num_envs
        there = numbers < self.written
        rows = self.slots(torch.where(there, numbers, first))
        ends = torch.from_numpy(self._ends[rows.numpy()]).long()
        return self._storage.get(rows), there & (ends.cumsum(1) == ends)

    def sample_sequences(self, count: int, length: int) -> TensorDictBase:
        """Sequences of consecutive transitions of one episode, uniform over all that are there, `[count, length]`.

        The last transition of a sequence may end its episode: its `("next", "observation")` still belongs to it.

        Raises:
            OptionError: if the replay holds no sequence of that length.
        """
        return self._storage.get(self._sequence_slots(count, length))

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
        training, holdout = (self._storage.get(torch.from_numpy(slots[first[:, None] + steps])) for first in starts)
        return training, holdout

    def first_observations(self) -> Tensor:
        """The observations that episodes began with, of all episodes whose beginning is there, `[n, O]`."""
        numbers = np.arange(self.oldest, self.written)
        before = numbers - self.num_envs
        began = before < 0
        known = before >= self.oldest
        began[known] = self._ends[self.slots(before[known])]
        return self.buffer[torch.from_numpy(self.slots(numbers[began]))]["observation"]

    def latest_episodes(self, count: int) -> Tensor:
        """The number of the first frame and the number of frames of the newest complete episodes, `[n, 2]`.

        In the order in which they ended; fewer than `count` if not as many are there from their first frame on.
        """
        numbers, found = np.arange(self.oldest, self.written), []
        for env in range(self.num_envs):
            own = numbers[env :: self.num_envs]
            last = own[self._ends[self.slots(own)]]
            known = last if self.oldest == 0 else last[1:]  # the beginning of the first may have been overwritten
            first = np.concatenate([[env], last + self.num_envs])[len(last) - len(known) :][: len(known)]
            found.append(np.stack([known, first, (known - first) // self.num_envs + 1], 1))
        episodes = np.concatenate(found)
        return torch.from_numpy(episodes[episodes[:, 0].argsort()][-count:, 1:].copy())

    def numbered_frames(self, numbers: Tensor) -> TensorDictBase:
        """The frames with these numbers, which are there, `[...]`; an environment's next one is `num_envs` later."""
        return self._storage.get(self.slots(numbers))

    def truncate_running_episodes(self, envs: Iterable[int] | None = None) -> None:
        """Marks the newest frame of each environment as truncated, where new episodes start out of turn.

        Args:
            envs: of these environments only.
        """
        for env in range(self.num_envs) if envs is None else envs:
            back = self.num_envs - env  # frames of one time step lie in the order of the environments
            slot = (self.cursor - back) % self.capacity
            if back <= len(self) and not self._ends[slot]:
                self._mark(slot)
                self.marks.append(self.written - back)

    # ------------------------------------------------------------------ checkpoint
    def _read(self, slots: Tensor) -> dict[str, Tensor]:
        return named(self._storage.get(slots))

    def _restore_rows(self, slot: int, rows: dict[str, Tensor]) -> None:
        self.cursor = slot
        self.buffer.extend(nested(rows))

    def _mark(self, slot: int) -> None:
        self._storage.get(slice(slot, slot + 1))["next", "truncated"].fill_(True)
        self._ends[slot] = True

    def _restored(self) -> None:
        if len(self):
            following = self.frames()["next"]
            self._ends[: len(self)] = (following["terminated"] | following["truncated"]).view(-1).numpy()


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
