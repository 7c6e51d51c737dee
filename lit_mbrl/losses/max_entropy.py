"""Advantages of maximum-entropy on-policy learning ("On-Policy Maximum Entropy Deep Reinforcement Learning", 3-4).

The objective pays `r(s_t, a_t) + beta H(pi(. | s_t))` per step. `H` is the entropy of the policy that is being trained,
at its present parameters, so the advantage depends on them and passes a gradient; rewards and values in it do not.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def max_entropy_advantage(
    advantage: Float[Tensor, "B 1"], entropy: Float[Tensor, "B 1"], beta: float | Float[Tensor, ""]
) -> Float[Tensor, "B 1"]:
    """`A_t(beta) = A_t(0) + beta E_t`, where `A_t(0)` is the generalised advantage without entropy.

    | `entropy` | gives |
    |---|---|
    | `E_t = sum_{i>=t} (gamma lambda)^{i-t} H_i`, `returns.discounted_sums` | the advantage of section 3, in full |
    | `E_t = H_t` | its one-step approximation (section 4), whose further terms are those of `A_t(0)` |

    The return is `R_t(beta) = A_t(beta) + V_old(s_t)`, differentiable like the advantage. Stop-gradient: `advantage`,
    `beta`.
    """
    beta = beta.detach() if isinstance(beta, Tensor) else beta
    return advantage.detach() + beta * entropy
