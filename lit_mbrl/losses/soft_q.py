"""Soft actor-critic: SVG section 3.2 (Amos et al. 2021, arXiv 2008.12775v3), eq. 4-8.

`E` critics, `*B` any batch axes, trailing 1. The temperature `alpha` is a constant everywhere but in its own loss, so
it is detached wherever it comes in as a tensor. The paper prints expectations; these are their single-sample forms.
"Double Q" (named, not printed) is the least of the `E` critics, as in the public code.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from lit_mbrl.losses.deterministic import td_target


def soft_value(
    q: Float[Tensor, "E *B 1"], log_prob: Float[Tensor, "*B 1"], alpha: float | Float[Tensor, ""]
) -> Float[Tensor, "*B 1"]:
    """`min_E Q - alpha log pi`, SVG eq. 6 at one sampled action. Stop-gradient: `alpha`."""
    alpha = alpha.detach() if isinstance(alpha, Tensor) else alpha
    return q.amin(0) - alpha * log_prob


def soft_q_target(
    reward: Float[Tensor, "*B 1"],
    terminated: Bool[Tensor, "*B 1"],
    next_value: Float[Tensor, "*B 1"],
    gamma: float,
) -> Float[Tensor, "*B 1"]:
    """`r + gamma V(x')`, SVG eq. 5, with no value after a termination; a truncation bootstraps.

    Stop-gradient: the result.

    Args:
        next_value: `soft_value` of the target critics at an action sampled in the next state.
    """
    return td_target(reward, terminated, next_value, gamma)


def q_loss(q: Float[Tensor, "E *B 1"], target: Float[Tensor, "*B 1"]) -> Float[Tensor, "E *B 1"]:
    """`(Q - target)^2` of each critic, SVG eq. 4. Stop-gradient: `target`."""
    return (q - target.detach()).square()


def soft_policy_loss(
    q: Float[Tensor, "E *B 1"], log_prob: Float[Tensor, "*B 1"], alpha: float | Float[Tensor, ""]
) -> Float[Tensor, "*B 1"]:
    """`alpha log pi - min_E Q`, SVG eq. 7, at a reparameterised action. Stop-gradient: `alpha`.

    Gradient also reaches the critics' parameters: the caller differentiates with respect to the policy alone.
    """
    alpha = alpha.detach() if isinstance(alpha, Tensor) else alpha
    return alpha * log_prob - q.amin(0)


def temperature_loss(
    alpha: Float[Tensor, ""], log_prob: Float[Tensor, "*B 1"], target_entropy: float | Float[Tensor, ""]
) -> Float[Tensor, "*B 1"]:
    """`alpha (-log pi - target_entropy)`, SVG eq. 8. Stop-gradient: `log_prob`.

    With `alpha = exp(log_alpha)` this is the paper's and its public code's form; others (TorchRL) put `log_alpha` in
    its place, which has the same root and another step size. Entropy below the target makes the gradient negative:
    `alpha` grows.
    """
    return alpha * (-log_prob.detach() - target_entropy)
