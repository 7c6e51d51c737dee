"""A value that is linear in simple features of observation and time, fitted in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CLIP = 10.0  # features of observations beyond it would rule the fit
_TIME = 100.0  # steps per unit of time


class LinearBaseline(nn.Module):
    """`V(x, t) = w . [x, x^2, t, t^2, t^3, 1]`, the baseline of Duan et al. 2016 (arXiv 1604.06778v3) and ME-TRPO.

    Observations are cut to [-10, 10], and time is counted in hundreds of steps. Before a fit the value is 0.

    Args:
        observation_dim: `O`.
        ridge: penalty of the squared weights in a fit.
    """

    weights: Tensor

    def __init__(self, observation_dim: int, ridge: float = 1e-5) -> None:
        super().__init__()
        self.ridge = ridge
        self.register_buffer("weights", torch.zeros(2 * observation_dim + 4, 1))

    def features(self, observation: Tensor, step: Tensor) -> Tensor:
        """Computes the features `[..., 2 O + 4]` of observations `[..., O]` at steps `[..., 1]` of their episodes."""
        x, t = observation.clamp(-_CLIP, _CLIP), step.to(observation.dtype) / _TIME
        return torch.cat([x, x.square(), t, t.square(), t**3, torch.ones_like(t)], dim=-1)

    def forward(self, observation: Tensor, step: Tensor) -> Tensor:
        """Values `[..., 1]`."""
        return self.features(observation, step) @ self.weights

    @torch.no_grad()
    def fit(self, observation: Tensor, step: Tensor, target: Tensor) -> None:
        """Takes the weights with the least squared error from targets `[N, 1]`, in float64."""
        features, target = self.features(observation, step).double(), target.double()
        gram = features.T @ features
        gram.diagonal().add_(self.ridge)
        self.weights.copy_(torch.linalg.lstsq(gram, features.T @ target, driver="gelsd").solution)
