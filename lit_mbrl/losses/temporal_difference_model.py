"""Temporal difference models (Pong et al. 2018, arXiv 1802.09081): values of goals `g` at horizons `tau`.

Values are vectors, one distance for each of the `G` numbers of a goal.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def goal_value(
    reached: Float[Tensor, "*E B G"], goal: Float[Tensor, "B G"], weight: Float[Tensor, " G"]
) -> Float[Tensor, "*E B G"]:
    """`-w |f - g|`: the value, per number, of a goal `g` where `f` will have been reached when the horizon is over."""
    return -weight * (reached - goal).abs()


def tdm_target(
    achieved: Float[Tensor, "B G"],
    goal: Float[Tensor, "B G"],
    weight: Float[Tensor, " G"],
    over: Bool[Tensor, "B 1"],
    next_q: Float[Tensor, "B G"],
) -> Float[Tensor, "B G"]:
    """`-w |a' - g|` where the horizon is over, `Q'(x', mu'(x', g, tau - 1), g, tau - 1)` elsewhere, not discounted.

    Stop-gradient: the result.

    Args:
        achieved: what the next state achieves, `a'`.
        over: `tau = 0`.
        next_q: target critic at the next state with one step less to go.
    """
    return torch.where(over, goal_value(achieved, goal, weight), next_q).detach()


def goal_score(q: Float[Tensor, "*B G"], norm: int) -> Float[Tensor, "*B 1"]:
    """Returns minus the 1- or 2-norm of the distances `-q`: one number for all of a goal's, the higher the nearer."""
    if norm == 1:
        return q.sum(-1, keepdim=True)
    return -torch.linalg.vector_norm(q, dim=-1, keepdim=True)
