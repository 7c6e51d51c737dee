"""Imagined transitions: a ring that is refilled quickly, and the same ring cut into segments.

| key | shape | dtype |
|---|---|---|
| `"observation"` | `[O]` | float32 |
| `"action"` | `[A]` | float32, in [-1, 1] |
| `("next", "observation")` | `[O]` | float32 |
| `("next", "reward")` | `[1]` | float32 |
| `("next", "terminated")` | `[1]` | bool |
| `"weight"` | `[1]` | float32, importance weight; `SegmentedBuffer` only |

The rows lie on the device that imagines them and are drawn there, in time independent of the capacity
(`benchmarks/studies/model_buffer.py`). Nothing real is ever written here, and nothing here is ever written to the
replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.buffers.ring import Ring, named, nested


class ModelBuffer(Ring):
    """A ring of imagined transitions whose size may change on the way.

    Memory is taken for the whole capacity at once, so that what `nbytes` says is all there will be.

    Args:
        capacity: transitions kept.
        observation_dim: `O`.
        action_dim: `A`.
        device: where they lie.
        weighted: keep an importance weight for each.
    """

    def __init__(
        self,
        capacity: int,
        observation_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        weighted: bool = False,
    ) -> None:
        super().__init__(capacity)
        self._sizes, self._device, self._weighted = (observation_dim, action_dim), torch.device(device), weighted
        self._rows = self._empty(capacity)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take, filled or not."""
        return self.capacity * bytes_per_row(*self._sizes, self._weighted)

    def rows(self) -> TensorDictBase:
        """All transitions that are there, `[len(self)]`, the oldest first."""
        return self._rows[self.slots(torch.arange(self.oldest, self.written))]

    def extend(self, frames: TensorDictBase) -> None:
        """Writes transitions `[N]` over the oldest; of more than there is room for, the last."""
        frames = frames[-self.capacity :] if len(frames) > self.capacity else frames
        until = min(self.cursor + len(frames), self.capacity)
        first = until - self.cursor
        self._rows[self.cursor : until] = frames[:first]
        if first < len(frames):
            self._rows[: len(frames) - first] = frames[first:]
        self._advance(len(frames))

    def sample(self, count: int) -> TensorDictBase:
        """Transitions drawn uniformly with replacement, `[count]`."""
        index = self._draw(count).to(self._device)
        following = {key: rows.index_select(0, index) for key, rows in self._rows["next"].items()}
        own = {key: rows.index_select(0, index) for key, rows in self._rows.items() if isinstance(rows, Tensor)}
        return TensorDict(own | {"next": following}, [count])  # half the time that indexing the whole takes

    def _draw(self, count: int) -> Tensor:
        """Row numbers `[count]`, from torch's CPU generator, whose state is in every checkpoint."""
        return torch.randint(self._size, (count,))

    def resize(self, capacity: int) -> None:
        """Grows, or shrinks to the newest transitions."""
        if capacity == self.capacity:
            return
        kept = self.rows()[-capacity:]
        self.written -= len(kept)  # they are written once more
        self._clear(capacity)
        self.extend(kept)

    def _clear(self, capacity: int) -> None:
        self.capacity, self.cursor, self._size = capacity, 0, 0
        self._rows = self._empty(capacity)

    def _empty(self, capacity: int) -> TensorDict:
        observation_dim, action_dim = self._sizes
        rows: dict[str, Any] = {
            "observation": torch.zeros(capacity, observation_dim),
            "action": torch.zeros(capacity, action_dim),
            "next": {
                "observation": torch.zeros(capacity, observation_dim),
                "reward": torch.zeros(capacity, 1),
                "terminated": torch.zeros(capacity, 1, dtype=torch.bool),
            },
        }
        if self._weighted:
            rows["weight"] = torch.zeros(capacity, 1)
        return TensorDict(rows, [capacity]).to(self._device)

    # ------------------------------------------------------------------ checkpoint
    def _read(self, slots: Tensor) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in named(self._rows[slots.to(self._device)]).items()}

    def _restore_rows(self, slot: int, rows: dict[str, Tensor]) -> None:
        frames = nested(rows)
        self._rows[slot : slot + len(frames)] = frames.to(self._device)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, with its capacity: what is drawn depends on where a row lies."""
        self._clear(state["capacity"])
        super().load_state_dict(state)


class SegmentedBuffer(ModelBuffer):
    """A ring of segments of equal size: one segment per rollout event (MEMR, arXiv 2006.04802, section 3.2, figure 1).

    The rows of a segment were drawn from one distribution of start states, and their weights are normalised among
    themselves. So a batch comes out of a single segment, drawn uniformly; rows of two segments never meet.

    Args:
        segments: segments kept.
        segment_size: rows of each, `M`.
        observation_dim: `O`.
        action_dim: `A`.
        device: where they lie.
    """

    def __init__(
        self,
        segments: int,
        segment_size: int,
        observation_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(segments * segment_size, observation_dim, action_dim, device, weighted=True)
        self.segment_size = segment_size

    def extend(self, frames: TensorDictBase) -> None:
        """Writes the next segment, `[M]` rows with their weights, over the oldest one."""
        if len(frames) != self.segment_size:
            raise ValueError(f"a segment has {self.segment_size} rows, not {len(frames)}")
        super().extend(frames)

    def _draw(self, count: int) -> Tensor:
        segment = torch.randint(self._size // self.segment_size, ())
        return segment * self.segment_size + torch.randint(self.segment_size, (count,))


def bytes_per_row(observation_dim: int, action_dim: int, weighted: bool = False) -> int:
    """Two observations, action and reward (and weight) in float32, and a flag."""
    return 4 * (2 * observation_dim + action_dim + 1 + weighted) + 1
