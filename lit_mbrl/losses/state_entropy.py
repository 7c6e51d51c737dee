"""The discounted distribution of future states and its entropy: MaxEnt Dreamer section 3 (arXiv 2112.01195v1).

`q(s | s_t)` is the distribution of the state `s_{t+k}` whose distance `k = 1, 2, ...` is geometric, `(1 - gamma)
gamma^{k-1}`. From a rollout `s_{t+1} ... s_{t+n}` and an estimate `P(. | s_{t+n})` of what follows, eq. 10 takes
expectations under q as a weighted sum over the rollout's states and a sample of P:

    E_q L(s, s_t)  ~  sum_{i<n} (1 - gamma) gamma^i L(s_{t+1+i}, s_t)  +  gamma^n L(s', s_t),   s' ~ P(. | s_{t+n})

Readings. Eq. 8-10 are printed with indices that do not agree with each other: the first term of eq. 10 would be
`L(s_t, s_t)`, while the distribution is that of `s_{tau > t}`, and eq. 9 bootstraps at `s_{t+n-1}` with the weight
`gamma^n`, which is due after n states. Eq. 6 leaves no choice: k steps ahead weigh `(1 - gamma) gamma^{k-1}` for k = 1
... n, which add up to `1 - gamma^n`, and what is left belongs to P at the last of them. The states come from the policy
that q is about, so the importance weights are these alone.

With terminations (the unnumbered equation after eq. 6) all that is left of the weight falls on the state in which the
episode ends: with `m_k` the weight left before step k and `d_k` the probability that the episode ends in `s_{t+k}`,

    w_k = m_k (d_k + (1 - d_k) (1 - gamma)),   m_{k+1} = m_k (1 - d_k) gamma,   m_1 = 1,   w_{n+1} = m_{n+1}.

The printed equation has `d` at two different times for one event; with both at k the weights add up to 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def future_weights(termination_prob: Float[Tensor, "B H 1"], gamma: float) -> Float[Tensor, "B H+1 1"]:
    """Weights of the H states of a rollout and of one state that follows them; they add up to 1 (MaxEnt eq. 10).

    Differentiable in the terminations: an agent may keep the episode going in order to see more.

    Args:
        termination_prob: `d_k`, the probability that the episode ends in state k = 1 ... H.
        gamma: of the distribution, not of the rewards.
    """
    left = torch.ones_like(termination_prob[:, 0])
    weights: list[Tensor] = []
    for ends in termination_prob.unbind(1):
        weights.append(left * (ends + (1.0 - ends) * (1.0 - gamma)))
        left = left * (1.0 - ends) * gamma
    return torch.stack([*weights, left], dim=1)


def expectation_over_future(
    weight: Float[Tensor, "B steps 1"],
    value: Float[Tensor, "B H 1"],
    bootstrap: Float[Tensor, "B K 1"],
    bootstrap_weight: Float[Tensor, "B K 1"],
) -> Float[Tensor, "B 1"]:
    """`E_q L(s, s_t)` of MaxEnt eq. 10 from `L` at the rollout's states and at K states drawn from P.

    Args:
        weight: of `future_weights`, H + 1 of them.
        value: `L` at the H states.
        bootstrap: `L` at states of P.
        bootstrap_weight: their probabilities, which add up to 1.
    """
    tail = (bootstrap_weight * bootstrap).sum(1)
    return (weight[:, :-1] * value).sum(1) + weight[:, -1] * tail
