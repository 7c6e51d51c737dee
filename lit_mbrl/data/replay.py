"""Replay of real transitions: one TorchRL storage, read as single transitions and as sequences.

Frames of `num_envs` environments side by side lie interleaved in time-major order, so the successor of slot `i` is slot
`i + num_envs` (modulo the capacity):

    slot   0    1    2    3    4    5          (num_envs = 2)
    frame  e0t0 e1t0 e0t1 e1t1 e0t2 e1t2 ...

Observations are stored raw; whoever samples normalises with today's statistics.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers.samplers import RandomSampler

from lit_mbrl.errors import UserError

STORED = (
    "observation",
    "action",
    ("next", "observation"),
    ("next", "reward"),
    ("next", "terminated"),
    ("next", "truncated"),
)
_TRIES = 100


class Replay:
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
        self.capacity = capacity - capacity % num_envs
        if storage == "memory":
            backing = LazyTensorStorage(self.capacity)
        else:
            # A resumed run writes over its files: the frames of its checkpoint are in the checkpoint.
            folder = None if directory is None else str(directory)
            backing = LazyMemmapStorage(self.capacity, scratch_dir=folder, existsok=True)
        self.buffer = ReplayBuffer(storage=backing, sampler=RandomSampler())
        self._episode_end = torch.zeros(self.capacity, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.buffer)

    def frames(self) -> TensorDictBase:
        """All frames that are there, `[len(self)]`, in slot order."""
        return self.buffer[: len(self)]

    @property
    def cursor(self) -> int:
        """Slot that the next frame is written to."""
        return int(self.buffer.writer._cursor)

    def extend(self, frames: TensorDictBase) -> None:
        """Appends frames `[num_envs, T]`."""
        frames = frames.transpose(0, 1).reshape(-1)
        slots = self.buffer.extend(frames)
        self._episode_end[slots] = (frames["next", "terminated"] | frames["next", "truncated"]).view(-1)

    def sample_transitions(self, count: int) -> TensorDictBase:
        """Transitions drawn uniformly with replacement, `[count]`."""
        return self.buffer.sample(count)

    def sample_sequences(self, count: int, length: int) -> TensorDictBase:
        """Sequences of consecutive transitions of one episode, uniform over all that are there, `[count, length]`.

        The last transition of a sequence may end its episode: its `("next", "observation")` still belongs to it.

        Raises:
            UserError: if the replay holds no sequence of that length.
        """
        return self.buffer[self._sequence_slots(count, length)]

    def _sequence_slots(self, count: int, length: int) -> Tensor:
        # Rejection keeps the draw exactly uniform over the valid starts, in time independent of the capacity.
        size = len(self)
        oldest = self.cursor if size == self.capacity else 0
        starts = size - (length - 1) * self.num_envs
        steps = torch.arange(length) * self.num_envs
        accepted: list[Tensor] = []
        missing = count
        for _ in range(_TRIES if starts > 0 else 0):
            first = torch.randint(starts, (missing + missing // 4 + 8,))
            slots = (oldest + first.unsqueeze(-1) + steps) % self.capacity
            slots = slots[~self._episode_end[slots[:, :-1]].any(-1)]
            accepted.append(slots)
            missing -= len(slots)
            if missing <= 0:
                return torch.cat(accepted)[:count]
        raise UserError(
            "model.horizon",
            length,
            f"episodes of at least {length} steps in the replay, which holds {size} transitions and no such sequence "
            "(raise data.learning_starts or lower the horizon)",
        )

    def truncate_running_episodes(self) -> None:
        """Marks the newest frame of each environment as truncated: for a resume that starts new episodes."""
        newest = (self.cursor - 1 - torch.arange(self.num_envs)) % self.capacity
        for slot in newest[~self._episode_end[newest]].tolist():
            # Through a view: `storage.set` would count the frame as a new one.
            self.buffer.storage[slot : slot + 1]["next", "truncated"].fill_(True)
            self._episode_end[slot] = True

    def state_dict(self) -> dict[str, Any]:
        """The frames that are there (not the empty capacity) in slot order, and the write cursor."""
        if not len(self):
            return {"cursor": 0, "frames": {}}
        frames = self.frames()
        return {"cursor": self.cursor, "frames": {".".join(_path(key)): frames[key].clone() for key in _leaves(frames)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores frames and cursor into an empty replay of the same capacity and number of environments."""
        if not state["frames"]:
            return
        tensors = {tuple(name.split(".")): value for name, value in state["frames"].items()}
        count = len(next(iter(tensors.values())))
        if count > self.capacity or (count < self.capacity and state["cursor"] != count):
            raise UserError("data.capacity", self.capacity, f"the {count} transitions of the checkpoint's replay")
        frames = TensorDict({}, [count])
        for key, value in tensors.items():
            frames[key if len(key) > 1 else key[0]] = value
        self.buffer.extend(frames)
        self.buffer.writer._cursor = state["cursor"]
        self._episode_end[:count] = (frames["next", "terminated"] | frames["next", "truncated"]).view(-1)


def predicted_bytes(capacity: int, observation_dim: int, action_dim: int) -> int:
    """Bytes of a full replay: two observations, action and reward in float32, two flags and the episode ends."""
    return capacity * (4 * (2 * observation_dim + action_dim + 1) + 3)


def require_room(size: int, storage: Literal["memory", "memmap"], directory: str | Path) -> None:
    """Raises `UserError` if `size` bytes do not fit into free memory, or onto the disk for `"memmap"`."""
    if storage == "memory":
        free, where = psutil.virtual_memory().available, "memory"
    else:
        free, where = shutil.disk_usage(directory).free, "disk space"
    if size > free:
        advice = "a smaller data.capacity" + (" or data.storage=memmap" if storage == "memory" else "")
        raise UserError(
            "data.capacity", f"{size / 1e9:.1f} GB", f"at most the free {where}, {free / 1e9:.1f} GB: {advice}"
        )


def _leaves(frames: TensorDictBase) -> list[Any]:
    return sorted(frames.keys(include_nested=True, leaves_only=True), key=str)


def _path(key: Any) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (key,)
