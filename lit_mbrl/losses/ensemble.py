"""Likelihood of probabilistic ensembles: PETS (Chua et al. 2018, arXiv 1805.12114v2), MBPO (arXiv 1906.08253v3)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bounded_log_variance(
    raw: Float[Tensor, "*B D"], low: Float[Tensor, " D"], high: Float[Tensor, " D"]
) -> Float[Tensor, "*B D"]:
    """The raw log-variance brought between learned bounds, smoothly (PETS, appendix A.1).

        v = high - softplus(high - raw),   log var = low + softplus(v - low)

    Differentiable in all three. The result exceeds `high` by at most `softplus(low - high)`, which is what the second
    softplus adds there: 3e-5 for MBPO's bounds -10 and 0.5.
    """
    capped = high - F.softplus(high - raw)
    return low + F.softplus(capped - low)


def gaussian_nll(
    mean: Float[Tensor, "*B D"], log_var: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"]
) -> Float[Tensor, "*B 1"]:
    """`mean_d [(mean_d - target_d)^2 exp(-log_var_d) + log_var_d]`, PETS eq. 1 per dimension.

    Of a diagonal Gaussian this is `-2 log p(target) / D - log 2 pi`. The equation sums over dimensions; the public code
    of PETS and MBPO takes their mean, and the weight of `bound_penalty` and of the weight decay is relative to that.
    """
    return ((mean - target).square() * (-log_var).exp() + log_var).mean(-1, keepdim=True)


def bound_penalty(low: Float[Tensor, " D"], high: Float[Tensor, " D"], weight: float = 0.01) -> Float[Tensor, ""]:
    """`weight (sum high - sum low)`: draws the bounds of the log-variance together (public code of PETS and MBPO)."""
    return weight * (high.sum() - low.sum())


def ensemble_squared_error(predicted: Float[Tensor, "*B D"], target: Float[Tensor, "*B D"]) -> Float[Tensor, "*B 1"]:
    """Mean over dimensions of `(predicted - target)^2`: a deterministic ensemble's loss, every ensemble's hold-out."""
    return (predicted - target).square().mean(-1, keepdim=True)
