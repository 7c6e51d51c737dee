"""Keeps the plan of each environment from one step of an episode to the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mbrl.planners.base import Planner


class PlanMemory(nn.Module):
    """Keeps where each environment's next search begins; in every checkpoint.

    Args:
        planner: whose memory this is.
        action_dim: A.
    """

    def __init__(self, planner: Planner, action_dim: int) -> None:
        super().__init__()
        self._planner, self._action_dim = planner, action_dim
        self.plans: Tensor | None = None

    def recall(self, is_init: Tensor) -> Tensor:
        """Returns where searches begin, `[B, M, H, A]`: from nothing where an episode begins (`is_init` `[B, 1]`)."""
        start = self._planner.start(len(is_init), self._action_dim, is_init.device)
        if self.plans is None or len(self.plans) != len(is_init):
            return start
        return torch.where(is_init[:, :, None, None], start, self.plans.to(is_init.device))

    def keep(self, memory: Tensor) -> None:
        """Remembers for the next step, `[B, M, H, A]`."""
        self.plans = memory

    def forget(self) -> None:
        """Begins anew everywhere."""
        self.plans = None

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.plans is None else self.plans

    def set_extra_state(self, state: Tensor) -> None:
        self.plans = state if state.numel() else None
