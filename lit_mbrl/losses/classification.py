"""Losses of classes: frames as classes of their pixels, rewards as classes, and distilled policies.

Weber et al. 2017 (arXiv 1707.06203v2), appendix: a model's next frame is a categorical distribution for each pixel, its
reward one over the rewards that there are. `N` rows, `K` classes of a pixel, `R` of a reward, `A` actions.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor


def frame_loss(logits: Float[Tensor, "N K h w"], cells: Integer[Tensor, "N h w"]) -> Float[Tensor, "N 1"]:
    """Computes `-log p(x)` of the true class of each pixel in nats, the mean over a frame's pixels."""
    return F.cross_entropy(logits, cells.long(), reduction="none").mean((-2, -1)).unsqueeze(-1)


def class_loss(logits: Float[Tensor, "N R"], label: Integer[Tensor, "N 1"]) -> Float[Tensor, "N 1"]:
    """Computes `-log p(r)` of the true class in nats."""
    return F.cross_entropy(logits, label.squeeze(-1).long(), reduction="none").unsqueeze(-1)


def distillation_loss(logits: Float[Tensor, "N A"], teacher: Float[Tensor, "N A"]) -> Float[Tensor, "N 1"]:
    """Computes `-sum_a pi(a) log pi_hat(a)`, the cross-entropy of a student `pi_hat` and its teacher, in nats.

    Its gradient is that of KL(pi, pi_hat), which it exceeds by the teacher's entropy. Stop-gradient: the teacher.

    Args:
        logits: of the student.
        teacher: log-probabilities.
    """
    return -(teacher.detach().exp() * logits.log_softmax(-1)).sum(-1, keepdim=True)
