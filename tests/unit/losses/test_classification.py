"""Losses of classes beside loops, and what they hold constant."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from lit_mbrl.losses import class_loss, distillation_loss, frame_loss


def test_frame_loss_is_the_mean_over_pixels() -> None:
    torch.manual_seed(0)
    logits, cells = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randint(3, (2, 4, 5), dtype=torch.uint8)
    found = frame_loss(logits, cells)
    assert found.shape == (2, 1)
    for n in range(2):
        total = 0.0
        for i in range(4):
            for j in range(5):
                weights = [math.exp(x) for x in logits[n, :, i, j].tolist()]
                total -= math.log(weights[int(cells[n, i, j])] / sum(weights))
        assert found[n].item() == pytest.approx(total / 20)


def test_class_loss_is_minus_the_log_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    found = class_loss(logits, torch.tensor([[1], [1]]))
    torch.testing.assert_close(found, -torch.tensor([[0.75], [0.2]]).log())


def test_distillation_is_the_divergence_from_the_teacher_plus_its_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    given = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher, student = Categorical(logits=given), Categorical(logits=logits)
    found = distillation_loss(logits, given.log_softmax(-1))
    expected = kl_divergence(teacher, student) + teacher.entropy()
    torch.testing.assert_close(found.squeeze(-1), expected)
    # It is not the divergence the other way round.
    assert not torch.allclose(found.squeeze(-1), kl_divergence(student, teacher) + teacher.entropy())
    found.sum().backward()
    torch.testing.assert_close(logits.grad, student.probs.detach() - teacher.probs.detach())
    assert given.grad is None
