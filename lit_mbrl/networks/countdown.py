"""Steps that are left until a horizon is over, in each environment."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Countdown(nn.Module):
    """Counts from `start` down to 0 and then anew; from `start` in the first step of an episode, too.

    The state is per environment and part of a checkpoint.

    Args:
        start: steps that are left at first.
    """

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.left: Tensor | None = None  # of the newest step

    def forward(self, is_init: Tensor) -> Tensor:
        """Steps left `[N, 1]`, float32; `is_init` `[N, 1]` marks the first steps of episodes."""
        fresh = torch.full(is_init.shape, float(self.start), device=is_init.device)
        if self.left is None or len(self.left) != len(is_init):
            self.left = fresh
        else:
            before = self.left.to(is_init.device)
            self.left = torch.where(is_init | (before == 0), fresh, before - 1.0)
        return self.left

    def forget(self) -> None:
        """Begins anew everywhere."""
        self.left = None

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.left is None else self.left

    def set_extra_state(self, state: Tensor) -> None:
        self.left = state if state.numel() else None
