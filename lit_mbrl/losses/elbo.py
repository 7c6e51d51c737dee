"""The evidence lower bound of latent world models: PlaNet (arXiv 1811.04551v5, "PlaNet"), Dreamer (arXiv 1912.01603v3,
"Dreamer") and MaxEnt Dreamer (arXiv 2112.01195v1, "MaxEnt").

Gaussians are diagonal, given by mean and standard deviation `[..., S]`. Distribution objects are avoided: these run in
every step of a recurrence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gaussian_kl(
    mean: Float[Tensor, "*B S"], std: Float[Tensor, "*B S"], other_mean: Float[Tensor, "*B S"],
    other_std: Float[Tensor, "*B S"],
) -> Float[Tensor, "*B 1"]:  # fmt: skip
    """`D_KL(N(mean, std) || N(other_mean, other_std))`, the divergence of Dreamer eq. 13 and MaxEnt eq. 3."""
    ratio = (std / other_std).square()
    distance = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1, keepdim=True)


def standard_normal_kl(mean: Float[Tensor, "*B S"], std: Float[Tensor, "*B S"]) -> Float[Tensor, "*B 1"]:
    """`D_KL(N(mean, std) || N(0, 1))`, the fixed prior of MaxEnt section 4.2."""
    return 0.5 * (std.square() + mean.square() - 1.0 - 2.0 * std.log()).sum(-1, keepdim=True)


def jeffreys(
    mean: Float[Tensor, "*B S"], std: Float[Tensor, "*B S"], other_mean: Float[Tensor, "*B S"],
    other_std: Float[Tensor, "*B S"],
) -> Float[Tensor, "*B 1"]:  # fmt: skip
    """`D_J(P || Q) = D_KL(P || Q) + D_KL(Q || P)`, MaxEnt section 4.2; the logarithms cancel."""
    precision, other_precision = std.square().reciprocal(), other_std.square().reciprocal()
    distance = (mean - other_mean).square() * (precision + other_precision)
    ratio = std.square() * other_precision + other_std.square() * precision
    return 0.5 * (ratio + distance - 2.0).sum(-1, keepdim=True)


def free_nats(divergence: Float[Tensor, ""], nats: float) -> Float[Tensor, ""]:
    """`max(D, nats)` of the mean over batch and time: below it there is no gradient at all (Dreamer's public code)."""
    return divergence.clamp(min=nats)


def free_nats_of_steps(divergence: Float[Tensor, "*B 1"], nats: float) -> Float[Tensor, "*B 1"]:
    """`max(D_t - nats, 0)` of every step, whose mean comes after it (PlaNet's public code).

    Steps below it have no gradient, whatever the others have; and what is free is not part of the loss, as it is in
    Dreamer's.
    """
    return (divergence - nats).clamp(min=0.0)


def unit_gaussian_loss(predicted: Float[Tensor, "*B X"], target: Float[Tensor, "*B X"]) -> Float[Tensor, "*B 1"]:
    """`-log N(target; predicted, 1)` without its constant: half the squared error, summed over the features."""
    return 0.5 * (predicted - target).square().sum(-1, keepdim=True)


def pixel_loss(predicted: Float[Tensor, "*B C h w"], image: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B 1"]:
    """`-log p(o_t | s_t)` of an image in [-0.5, 0.5] up to a constant, a unit Gaussian in every pixel (MaxEnt eq. 3).

    It is the sum over pixels, not their mean, that the weight of the divergence refers to.
    """
    return 0.5 * F.mse_loss(predicted, image, reduction="none").sum((-3, -2, -1)).unsqueeze(-1)


def smooth_l1(predicted: Float[Tensor, "*B 1"], target: Float[Tensor, "*B 1"]) -> Float[Tensor, "*B 1"]:
    """Half the squared error up to a distance of 1, linear beyond: MaxEnt section 4.2, minor modification 2."""
    return F.smooth_l1_loss(predicted, target, reduction="none")


def discounted_weights(stays: Float[Tensor, "B H 1"]) -> Float[Tensor, "B H 1"]:
    """`w_0 = 1`, `w_t = prod_{i<t} stays_i`, a constant: how much an imagined step counts (Dreamer's public code).

    Args:
        stays: the discount after each step, `gamma (1 - d_t)`.
    """
    with torch.no_grad():
        return torch.cat([torch.ones_like(stays[:, :1]), stays[:, :-1]], dim=1).cumprod(1)
