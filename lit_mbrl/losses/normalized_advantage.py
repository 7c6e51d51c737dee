"""Normalized advantage functions: Gu et al. 2016 (arXiv 1603.00748v1), sections 4 and 8.2.

The action-value is a value and a quadratic advantage, `Q(x, u) = V(x) + A(x, u)`, whose maximum over `u` is `V(x)`.
`L` is the lower triangular factor of the precision `P = L L^T`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def quadratic_advantage(
    action: Float[Tensor, "*B A"], mean: Float[Tensor, "*B A"], factor: Float[Tensor, "*B A A"]
) -> Float[Tensor, "*B 1"]:
    """`A(x, u) = -1/2 (u - mu)^T L L^T (u - mu)`, section 4: zero at the mean, negative elsewhere."""
    # A product of matrices would be in half precision where autocast is on.
    deviation = ((action - mean).unsqueeze(-1) * factor).sum(-2)  # L^T (u - mu), [..., A]
    return -0.5 * deviation.square().sum(-1, keepdim=True)


def precision_noise(
    normal: Float[Tensor, "*B A"], factor: Float[Tensor, "*B A A"], scale: float | Float[Tensor, "*B 1"]
) -> Float[Tensor, "*B A"]:
    """Returns noise with the covariance `c P^-1`, section 8.2 eq. 7: `sqrt(c) L^-T` times standard normal noise.

    Args:
        scale: `c`.
    """
    drawn = torch.linalg.solve_triangular(factor.mT, normal.unsqueeze(-1), upper=True).squeeze(-1)
    return torch.as_tensor(scale, dtype=drawn.dtype, device=drawn.device).sqrt() * drawn


def precision_scale(factor: Float[Tensor, "*B A A"], sigma: float) -> Float[Tensor, "*B 1"]:
    """Returns the `c` with which `c P^-1` has the mean variance `sigma^2`: `sigma^2 A / trace(P^-1)`."""
    size = factor.shape[-1]
    identity = torch.eye(size, dtype=factor.dtype, device=factor.device).expand_as(factor)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)  # trace(P^-1) = |L^-1|^2
    return sigma**2 * size / inverse.square().sum((-2, -1)).unsqueeze(-1)
