"""Q-learning with a deep network: DQN (Mnih et al. 2015, doi 10.1038/nature14236), double DQN (van Hasselt et al. 2015,
arXiv 1509.06461), proportional priorities (Schaul et al. 2015, arXiv 1511.05952)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def action_value(q: Float[Tensor, "*B A"], action: Int[Tensor, "*B"]) -> Float[Tensor, "*B 1"]:
    """`Q(x, u)` of the actions that were taken, out of the values of all `A`."""
    return q.gather(-1, action.unsqueeze(-1))


def double_q_value(online: Float[Tensor, "*B A"], target: Float[Tensor, "*B A"]) -> Float[Tensor, "*B 1"]:
    """`Q'(x, argmax_u Q(x, u))`, double DQN's value of a state. With `online` the target's own values it is DQN's."""
    return target.gather(-1, online.argmax(-1, keepdim=True))


def huber_loss(
    q: Float[Tensor, "*B 1"], target: Float[Tensor, "*B 1"], delta: float | None = 1.0
) -> Float[Tensor, "*B 1"]:
    """Half the squared error, linear beyond `delta`. Stop-gradient: `target`.

    With `delta=1` its gradient is the error cut to [-1, 1], as Mnih et al. describe in their methods.

    Args:
        delta: None: half the squared error throughout.
    """
    if delta is None:
        return 0.5 * (q - target.detach()).square()
    return F.huber_loss(q, target.detach(), reduction="none", delta=delta)


def td_priority(error: Float[Tensor, "*B 1"], epsilon: float) -> Float[Tensor, "*B"]:
    """`p = |delta| + epsilon`, the proportional priority of section 3.3 (Schaul et al.)."""
    return error.detach().abs().squeeze(-1) + epsilon
