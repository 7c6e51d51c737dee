"""Priorities of the frames in a replay, and draws in proportion to them.

Zhang et al. 2020, "Maximum Entropy Model Rollouts" (arXiv 2006.04802), eq. 3; what a priority is, is the algorithm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from lit_mbrl.data.buffers.transitions import Replay


class Priorities:
    """`p^alpha` of every frame in a replay, and draws in proportion to it (eq. 3) by TorchRL's sum tree.

    TorchRL's sampler is given `p^alpha` itself with an exponent of 1. So what is saved is what the tree is made of, and
    a restored tree has the same bits.

    Args:
        capacity: slots of the replay.
    """

    def __init__(self, capacity: int) -> None:
        self._mass = torch.zeros(capacity)
        self._sampler = PrioritizedSampler(capacity, alpha=1.0, beta=0.0, eps=0.0)

    def set(self, slots: Tensor, mass: Tensor) -> None:
        """Writes `p^alpha`, `[n]`, of the frames in slots `[n]`; of a slot named more than once the last counts."""
        if not len(slots):
            return
        slots, where = slots.unique(return_inverse=True)
        last = torch.zeros_like(slots).scatter_reduce_(0, where, torch.arange(len(where)), "amax")
        self._mass[slots] = mass.cpu()[last]
        self._sampler.update_priority(slots, self._mass[slots])

    def draw(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Slots `[count]` among the first `size`, and the probability of each, `[count]` (eq. 3)."""
        slots, _ = self._sampler.sample(_Slots(size), count)
        return slots, self._mass[slots] / self._mass[:size].sum()

    def of(self, slots: Tensor) -> Tensor:
        """`p^alpha` of the frames in slots `[n]`, `[n]`; 0 where there is none yet."""
        return self._mass[slots]


class _Slots:
    """All that TorchRL's sampler asks a storage for."""

    ndim, device = 1, torch.device("cpu")

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class ReplayPriorities(Priorities):
    """Priorities that follow the frames of a replay.

    Attributes:
        known: number of the first frame that has no priority yet.

    Args:
        replay: whose frames they are of.
    """

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay.capacity)
        self.known = 0
        self._replay = replay

    def new_slots(self) -> Tensor:
        """Slots `[n]` of the frames that have no priority yet, the oldest first; from now on they count as known."""
        replay = self._replay
        slots = replay.slots(torch.arange(max(self.known, replay.oldest), replay.written))
        self.known = replay.written
        return slots

    def _all_slots(self) -> Tensor:
        """Slots of all frames, the oldest first."""
        return self._replay.slots(torch.arange(self._replay.oldest, self._replay.written))

    # ------------------------------------------------------------------ checkpoint
    def state_dict(self) -> dict[str, Any]:
        """`p^alpha` of the frames in the replay, the oldest first, and how many frames have one."""
        return {"mass": self.of(self._all_slots()), "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, once the replay has its frames again."""
        slots = self._all_slots()
        mass = state["mass"][len(state["mass"]) - len(slots) :]  # a smaller replay has the newest frames
        self.set(slots[mass > 0], mass[mass > 0])
        self.known = state["known"]
