from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from lit_mbrl.losses import dynamics_loss, reward_loss, termination_loss, value_gradient_loss


def test_value_gradient_loss() -> None:
    value = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    assert torch.equal(value_gradient_loss(value), -value)
    assert gradcheck(value_gradient_loss, (value,))


def test_dynamics_loss_is_the_squared_norm_of_each_step() -> None:
    predicted = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    loss = dynamics_loss(predicted, target)
    assert loss.shape == (3, 4, 1)
    for b in range(3):
        for t in range(4):
            expected = sum((predicted[b, t, o] - target[b, t, o]).item() ** 2 for o in range(2))
            assert loss[b, t].item() == pytest.approx(expected, rel=1e-12)
    # Summed over the steps this is the norm of eq. 10, taken over the whole sequence.
    torch.testing.assert_close(loss.sum(), (predicted - target).norm() ** 2)
    assert gradcheck(dynamics_loss, (predicted, target))


def test_reward_loss() -> None:
    predicted = torch.tensor([[1.0], [-2.0]], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([[3.0], [-2.0]], dtype=torch.float64, requires_grad=True)
    assert reward_loss(predicted, reward).tolist() == [[4.0], [0.0]]
    assert gradcheck(reward_loss, (predicted, reward))


TERMINATED = torch.tensor([[True], [False], [False], [False]])


@pytest.mark.parametrize(("balance", "weight"), [(False, 1.0), (True, 3.0)])
def test_termination_loss_is_the_bernoulli_likelihood(balance: bool, weight: float) -> None:
    logit = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    loss = termination_loss(logit, TERMINATED, balance)
    for b in range(4):
        d = 1 / (1 + math.exp(-logit[b].item()))
        expected = -weight * math.log(d) if TERMINATED[b] else -math.log(1 - d)
        assert loss[b].item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda x: termination_loss(x, TERMINATED, balance), (logit,))


def test_balanced_classes_weigh_the_same() -> None:
    """At logit 0 the gradients of the two classes cancel exactly when balanced."""
    logit = torch.zeros(4, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(termination_loss(logit, TERMINATED, True).sum(), logit)
    assert gradient.sum().item() == 0.0
    (gradient,) = torch.autograd.grad(termination_loss(logit, TERMINATED, False).sum(), logit)
    assert gradient.sum().item() == 1.0


@pytest.mark.parametrize("logit", [0.3, 200.0])
def test_without_terminations_balance_changes_nothing(logit: float) -> None:
    logits = torch.full((3, 1), logit)
    none = torch.zeros(3, 1, dtype=torch.bool)
    balanced = termination_loss(logits, none, True)
    assert torch.equal(balanced, termination_loss(logits, none, False)) and torch.isfinite(balanced).all()
    torch.testing.assert_close(balanced, torch.nn.functional.softplus(logits))
