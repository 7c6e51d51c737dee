"""Deterministic policy gradients: DDPG (Lillicrap et al. arXiv 1509.02971), TD3 (Fujimoto et al. arXiv 1802.09477)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def dpg_loss(q: Float[Tensor, "*B 1"]) -> Float[Tensor, "*B 1"]:
    """`-Q(x, mu(x))`: its gradient through the action is DDPG's policy gradient. TD3 passes its first critic."""
    return -q


def td_target(
    reward: Float[Tensor, "*B 1"],
    terminated: Bool[Tensor, "*B 1"],
    next_q: Float[Tensor, "*B 1"],
    gamma: float | Float[Tensor, "*B 1"],
) -> Float[Tensor, "*B 1"]:
    """`r + gamma Q'(x', u')`, with no value after a termination; a truncation bootstraps. Stop-gradient: the result.

    Args:
        gamma: the discount; after several steps, whose discounted rewards `reward` is, its power, of each row.
        next_q: DDPG: target critic at the target policy's action. TD3: the least of the target critics at a
            `smoothed_action`.
    """
    return (reward + gamma * next_q.masked_fill(terminated, 0.0)).detach()


def smoothed_action(action: Float[Tensor, "*B A"], noise: Float[Tensor, "*B A"], clip: float) -> Float[Tensor, "*B A"]:
    """TD3's target policy smoothing: `clip(u + clip(noise, -c, c), -1, 1)`.

    Args:
        noise: already scaled, `sigma * N(0, 1)`, in the units of the action.
        clip: the bound `c` of the noise.
    """
    return (action + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)
