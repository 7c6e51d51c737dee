"""Advantages of maximum-entropy on-policy learning ("On-Policy Maximum Entropy Deep Reinforcement Learning", 3-4).

The objective pays `r(s_t, a_t) + beta H(pi(. | s_t))` per step. `H` is the entropy of the policy that is being trained,
at its present parameters, so the advantage depends on them and passes a gradient; rewards and values in it do not.
`A_t(0)` is the generalised advantage without entropy. The return is `R_t(beta) = A_t(beta) + V_old(s_t)`.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from lit_mbrl.returns import discounted_sums


def one_step_advantage(
    advantage: Float[Tensor, "B 1"], entropy: Float[Tensor, "B 1"], beta: float | Float[Tensor, ""]
) -> Float[Tensor, "B 1"]:
    """`A_t(beta) ~ (r_t + beta H_t + gamma V_{t+1} - V_t) + gamma lambda A_{t+1}(0) = A_t(0) + beta H_t`, section 4.

    Of the entropies of the whole sum only the first step's is kept. Stop-gradient: `advantage`, `beta`.
    """
    beta = beta.detach() if isinstance(beta, Tensor) else beta
    return advantage.detach() + beta * entropy


def full_advantage(
    advantage: Float[Tensor, "N T 1"],
    entropy: Float[Tensor, "N T 1"],
    done: Bool[Tensor, "N T 1"],
    beta: float | Float[Tensor, ""],
    gamma: float,
    lmbda: float,
) -> Float[Tensor, "N T 1"]:
    """`A_t(beta) = A_t(0) + beta sum_{i>=t} (gamma lambda)^{i-t} H_i`, section 3, over the rest of the episode.

    Needs the entropies of all later states of a rollout. Stop-gradient: `advantage`, `beta`.
    """
    beta = beta.detach() if isinstance(beta, Tensor) else beta
    return advantage.detach() + beta * discounted_sums(entropy, done, gamma * lmbda)
