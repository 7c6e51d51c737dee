"""Exploration noise of deterministic policies."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianNoise(nn.Module):
    """Independent normal noise.

    Args:
        sigma: standard deviation, in units of the action range [-1, 1].
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, action: Tensor, is_init: Tensor) -> Tensor:
        """Noisy actions `[N, A]`, clipped to [-1, 1]."""
        return (action + self.sigma * torch.randn_like(action)).clamp(-1.0, 1.0)


class OrnsteinUhlenbeckNoise(nn.Module):
    """Time-correlated noise (DDPG, arXiv 1509.02971v6, section 3 and appendix 7): `n <- n - theta n + sigma N(0, I)`.

    The state is per environment, starts at 0 with each episode and is part of a checkpoint.

    Args:
        sigma: standard deviation of the increments.
        theta: rate of return to 0 per step.
    """

    def __init__(self, sigma: float, theta: float = 0.15) -> None:
        super().__init__()
        self.sigma, self.theta = sigma, theta
        self.state: Tensor | None = None

    def forward(self, action: Tensor, is_init: Tensor, increment: Tensor | None = None) -> Tensor:
        """Noisy actions `[N, A]`, clipped to [-1, 1].

        Args:
            action: `[N, A]`.
            is_init: `[N, 1]`, restarts the noise.
            increment: `[N, A]`, in the place of `sigma N(0, I)`.
        """
        state = torch.zeros_like(action) if self.state is None else self.state.to(action)
        state = torch.where(is_init, torch.zeros_like(state), state)
        increment = self.sigma * torch.randn_like(action) if increment is None else increment
        self.state = (1.0 - self.theta) * state + increment
        return (action + self.state).clamp(-1.0, 1.0)

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.state is None else self.state

    def set_extra_state(self, state: Tensor) -> None:
        self.state = state if state.numel() else None
