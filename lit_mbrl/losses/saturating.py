"""The saturating cost of PILCO, and its moments where the state is normal.

Deisenroth and Rasmussen 2011, "PILCO", section 2.3: `c(d) = 1 - exp(-|d|^2 / (2 width^2))` of a distance vector `d`.
Near the target it is quadratic, and far from it 1, so that a state of which nothing is known is worth exploring.
"""

from __future__ import annotations

import torch
from torch import Tensor


def saturating_cost(distance: Tensor, width: float) -> Tensor:
    """Returns the cost of distance vectors `[..., D]`, `[...]`."""
    return 1.0 - (-0.5 * distance.square().sum(-1) / width**2).exp()


def saturating_cost_moments(mean: Tensor, covariance: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Computes mean and variance `[...]` of the cost of a distance vector that is normal (equation 25).

    Args:
        mean: `[..., D]`.
        covariance: `[..., D, D]`.
        width: of the cost.
    """
    first = _expected_bell(mean, covariance, width**-2)
    second = _expected_bell(mean, covariance, 2.0 * width**-2)
    return 1.0 - first, (second - first.square()).clamp(min=0.0)


def _expected_bell(mean: Tensor, covariance: Tensor, precision: float) -> Tensor:
    """`E[exp(-precision/2 |d|^2)]`."""
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    factor = torch.linalg.cholesky(eye + precision * covariance)
    solved = torch.linalg.solve_triangular(factor, mean.unsqueeze(-1), upper=False).squeeze(-1)
    root = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (-root - 0.5 * precision * solved.square().sum(-1)).exp()
