"""Proximal policy optimisation's clipped objective: Schulman et al. 2017 (arXiv 1707.06347v2), eq. 6-9.

`B` frames of a minibatch, trailing 1. `log_prob` is the current policy's, `old_log_prob` that of the policy that acted.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def clip_objective(
    log_prob: Float[Tensor, "B 1"],
    old_log_prob: Float[Tensor, "B 1"],
    advantage: Float[Tensor, "B 1"],
    clip_range: float,
) -> Float[Tensor, "B 1"]:
    """`min(r A, clip(r, 1 - eps, 1 + eps) A)` with `r = pi / pi_old`, eq. 7; to be maximised.

    Differentiable in the advantage, too: one that depends on the policy (`losses.max_entropy`) is part of the gradient,
    also where the ratio is cut off.
    """
    ratio = (log_prob - old_log_prob).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantage)


def standardized(advantage: Float[Tensor, "B 1"], differentiable: bool = False) -> Float[Tensor, "B 1"]:
    """`(A - mean A) / std A` over the minibatch; a minibatch of one frame stays as it is.

    Not in the paper, in all implementations. Stop-gradient: mean and standard deviation, unless `differentiable`.
    """
    if len(advantage) < 2:
        return advantage
    mean, std = advantage.mean(), advantage.std()
    if not differentiable:
        mean, std = mean.detach(), std.detach()
    return (advantage - mean) / (std + 1e-8)


def value_loss(value: Float[Tensor, "B 1"], target: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
    """`(V - R)^2`, eq. 9.

    Differentiable in the target, too; where the return shall be a constant, the caller stops its gradient.
    """
    return (value - target).square()


def clipped_value_loss(
    value: Float[Tensor, "B 1"],
    old_value: Float[Tensor, "B 1"],
    target: Float[Tensor, "B 1"],
    clip_range: float,
) -> Float[Tensor, "B 1"]:
    """The larger of `(V - R)^2` and that of `V` cut to `V_old +- eps`; of OpenAI's baselines, not in the paper.

    Differentiable in the target like `value_loss`, also where the value is cut off.
    """
    cut = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return torch.maximum(value_loss(value, target), value_loss(cut, target))


def approx_kl(log_prob: Float[Tensor, "B 1"], old_log_prob: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
    """`(r - 1) - log r`, whose mean under the policy that acted is `KL(pi_old | pi)`; never negative."""
    log_ratio = log_prob - old_log_prob
    return log_ratio.expm1() - log_ratio


def clip_fraction(
    log_prob: Float[Tensor, "B 1"], old_log_prob: Float[Tensor, "B 1"], clip_range: float
) -> Float[Tensor, "B 1"]:
    """1 where the ratio lies outside of the range, else 0."""
    return (((log_prob - old_log_prob).exp() - 1.0).abs() > clip_range).to(log_prob.dtype)
