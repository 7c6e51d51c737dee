"""World-model likelihoods: SVG section 4.2 (Amos et al. 2021, arXiv 2008.12775v3), eq. 10-13."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def dynamics_loss(predicted: Float[Tensor, "*B T O"], target: Float[Tensor, "*B T O"]) -> Float[Tensor, "*B T 1"]:
    """`||x_hat_t - x_t||_2^2` of each predicted step, SVG eq. 10.

    The equation's norm runs over the whole sequence; the steps are left apart here. The public code averages over steps
    and features where the equation sums: the same gradient up to a constant, which Adam cancels but clipping does not.
    """
    return (predicted - target).square().sum(-1, keepdim=True)


def reward_loss(predicted: Float[Tensor, "*B 1"], reward: Float[Tensor, "*B 1"]) -> Float[Tensor, "*B 1"]:
    """`(r_hat - r)^2`, SVG eq. 11."""
    return (predicted - reward).square()


def termination_loss(
    logit: Float[Tensor, "*B 1"], terminated: Bool[Tensor, "*B 1"], balance: bool = False
) -> Float[Tensor, "*B 1"]:
    """`-log d(terminated | x, u)`, SVG eq. 13 with the Bernoulli likelihood of eq. 12, on logits.

    Args:
        terminated: true terminations only, never time limits.
        balance: weigh the positives by #negatives / #positives of this batch, so that both classes count the same. The
            paper found weighting not important; the public code always does it, which overstates terminations.
    """
    weight = None
    if balance:
        positives = terminated.sum(dtype=logit.dtype)
        # Without positives the weight multiplies nothing; the clamp only keeps 0 * inf out.
        weight = (terminated.numel() - positives) / positives.clamp(min=1.0)
    return F.binary_cross_entropy_with_logits(logit, terminated.to(logit.dtype), pos_weight=weight, reduction="none")
