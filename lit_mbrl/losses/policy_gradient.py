"""The policy gradient of actor-critics: Mnih et al. 2016 (arXiv 1602.01783v2), section 4; `B` frames, trailing 1."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def policy_gradient_loss(log_prob: Float[Tensor, "B 1"], advantage: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
    """Computes `-log pi(a | s) A`, whose gradient is minus the policy gradient. Stop-gradient: the advantage."""
    return -log_prob * advantage.detach()
