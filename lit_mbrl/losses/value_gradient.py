"""Stochastic value gradient: SVG section 4.1 (Amos et al. 2021, arXiv 2008.12775v3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def value_gradient_loss(value: Float[Tensor, "*B 1"]) -> Float[Tensor, "*B 1"]:
    """`-V_{0:H}(x)`, SVG eq. 9, where `value` is `returns.value_expansion` of an imagined rollout. No stop-gradient.

    At `H = 0` this is `soft_policy_loss`: the actor of SAC is SVG(0). Gradient also reaches the parameters of the model
    and of the critics: the caller differentiates with respect to the policy alone.
    """
    return -value
