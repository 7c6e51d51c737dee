"""The objective of trust-region policy optimisation: Schulman et al. 2015 (arXiv 1502.05477v5), eq. 14.

`B` frames of a rollout, trailing 1. `log_prob` is the current policy's, `old_log_prob` that of the policy that acted.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def surrogate_objective(
    log_prob: Float[Tensor, "B 1"], old_log_prob: Float[Tensor, "B 1"], advantage: Float[Tensor, "B 1"]
) -> Float[Tensor, "B 1"]:
    """`r A` with `r = pi / pi_old`, eq. 14 with advantages in the place of state-action values; to be maximised."""
    return (log_prob - old_log_prob).exp() * advantage
