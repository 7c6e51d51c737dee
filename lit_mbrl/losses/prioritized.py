"""Maximum-entropy sampling of start states: MEMR section 3 (Zhang et al. 2020, arXiv 2006.04802), eq. 3-5.

`N` states, `M` samples of them. `A` action dimensions, `psi` the policy that the model's data follow.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_log_prob(
    action: Float[Tensor, "*B A"], mean: Float[Tensor, "*B A"], log_std: Float[Tensor, "*B A"]
) -> Float[Tensor, "*B A"]:
    """`log N(a; mean, std^2)` of each dimension; their sum is the log-likelihood of a diagonal Gaussian."""
    return -0.5 * ((action - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2.0 * math.pi)


def entropy_priority(
    action: Float[Tensor, "*B A"], mean: Float[Tensor, "*B A"], log_std: Float[Tensor, "*B A"]
) -> Float[Tensor, "*B 1"]:
    """`p = -log(sqrt(2 pi) psi(a|s) sigma(psi(.|s)))`, eq. 4, never negative.

    The equation is for one dimension, where it is half the squared distance of the action from the mean in standard
    deviations. For a diagonal Gaussian we sum it over the dimensions, which is theorem 3.1 with the joint density; the
    author's code has their mean, the same `P(i)` in eq. 3.
    """
    return (-gaussian_log_prob(action, mean, log_std) - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1, keepdim=True)


def sampling_mass(priority: Float[Tensor, "*N"], alpha: float) -> Float[Tensor, "*N"]:
    """`p^alpha`, the numerator of eq. 3; alpha = 0 is uniform."""
    return priority.pow(alpha)


def importance_weight(probability: Float[Tensor, "*M"], count: int, beta: float) -> Float[Tensor, "*M"]:
    """`(1 / (N P(i)))^beta`, eq. 5; beta = 0 corrects nothing, beta = 1 all of the bias.

    Args:
        count: states `N` that were drawn from.
    """
    return (count * probability).pow(-beta)


def normalized_by_max(weight: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """Algorithm 1, line 11: divided by the segment's largest, so that weights only scale down."""
    return weight / weight.max()


def normalized_by_mean(weight: Float[Tensor, "*M"]) -> Float[Tensor, "*M"]:
    """The author's code: divided by the segment's mean, so that weights keep the size of the loss."""
    return weight / weight.mean()


def weighted(loss: Float[Tensor, "E *B 1"], weight: Float[Tensor, "*B 1"]) -> Float[Tensor, "E *B 1"]:
    """`w_i J(i)`, Algorithm 1, line 19. Stop-gradient: `weight`."""
    return weight.detach() * loss


def behaviour_loss(
    action: Float[Tensor, "*B A"], mean: Float[Tensor, "*B A"], log_std: Float[Tensor, "*B A"]
) -> Float[Tensor, "*B 1"]:
    """`-log psi(a|s)`, the maximum likelihood of Algorithm 1, line 15. Stop-gradient: `action`."""
    return -gaussian_log_prob(action.detach(), mean, log_std).sum(-1, keepdim=True)


def raw_action(action: Float[Tensor, "*B A"], limit: float = 1.0 - 1e-6) -> Float[Tensor, "*B A"]:
    """The pre-tanh action of a tanh-squashed policy, `atanh(a)`, finite at the ends of the range."""
    return torch.atanh(action.clamp(-limit, limit))
