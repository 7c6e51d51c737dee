from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lit_mbrl import losses
from lit_mbrl.losses import q_loss, soft_policy_loss, soft_q_target, soft_value, temperature_loss

B, E = 5, 3


def column(*shape: int) -> Tensor:
    return torch.randn(*(shape or (B,)), 1, dtype=torch.float64, requires_grad=True)


def test_values_against_loops() -> None:
    q, log_prob, reward, alpha, gamma = column(E, B), column(), column(), 0.3, 0.9
    terminated = torch.tensor([[True], [False], [False], [True], [False]])
    value, policy = soft_value(q, log_prob, alpha), soft_policy_loss(q, log_prob, alpha)
    target = soft_q_target(reward, terminated, value, gamma)
    residual = q_loss(q, target)
    entropy = temperature_loss(torch.tensor(alpha, dtype=torch.float64), log_prob, -2.0)
    for b in range(B):
        least, logp = min(q[e, b].item() for e in range(E)), log_prob[b].item()
        assert value[b].item() == pytest.approx(least - alpha * logp, rel=1e-12)
        assert policy[b].item() == pytest.approx(alpha * logp - least, rel=1e-12)
        bootstrap = 0.0 if terminated[b] else gamma * (least - alpha * logp)
        assert target[b].item() == pytest.approx(reward[b].item() + bootstrap, rel=1e-12)
        assert entropy[b].item() == pytest.approx(alpha * (-logp + 2.0), rel=1e-12)
        for e in range(E):
            assert residual[e, b].item() == pytest.approx((q[e, b].item() - target[b].item()) ** 2, rel=1e-12)


@pytest.mark.parametrize("shape", [(B,), (B, 4)])
def test_any_batch_axes(shape: tuple[int, ...]) -> None:
    q, log_prob = column(E, *shape), column(*shape)
    terminated = torch.zeros(*shape, 1, dtype=torch.bool)
    value = soft_value(q, log_prob, 0.1)
    assert value.shape == soft_policy_loss(q, log_prob, 0.1).shape == (*shape, 1)
    assert q_loss(q, soft_q_target(log_prob, terminated, value, 0.9)).shape == (E, *shape, 1)


def test_gradcheck_of_everything_differentiable() -> None:
    q, log_prob, target = column(E, B), column(), column().detach()
    assert gradcheck(lambda q, p: soft_value(q, p, 0.3), (q, log_prob))
    assert gradcheck(lambda q, p: soft_policy_loss(q, p, 0.3), (q, log_prob))
    assert gradcheck(lambda q: q_loss(q, target), (q,))
    log_alpha = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a: temperature_loss(a.exp(), log_prob, -2.0), (log_alpha,))


def test_stop_gradients() -> None:
    q, log_prob, reward, next_value = column(E, B), column(), column(), column()
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    terminated = torch.zeros(B, 1, dtype=torch.bool)
    assert not soft_q_target(reward, terminated, next_value, 0.9).requires_grad

    def reaches(loss: Tensor, *inputs: Tensor) -> list[bool]:
        return [g is not None for g in torch.autograd.grad(loss.sum(), inputs, allow_unused=True)]

    assert reaches(q_loss(q, next_value), q, next_value) == [True, False]
    assert reaches(soft_value(q, log_prob, alpha), q, log_prob, alpha) == [True, True, False]
    assert reaches(soft_policy_loss(q, log_prob, alpha), q, log_prob, alpha) == [True, True, False]
    assert reaches(temperature_loss(alpha, log_prob, -2.0), alpha, log_prob) == [True, False]


def test_terminated_cuts_the_bootstrap_even_of_a_worthless_value() -> None:
    reward = torch.tensor([[1.0], [1.0]])
    next_value = torch.tensor([[math.inf], [2.0]])  # nothing that is said about the state after the end may leak in
    terminated = torch.tensor([[True], [False]])
    assert soft_q_target(reward, terminated, next_value, 0.5).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(("entropy", "grows"), [(-3.0, True), (-1.0, False)])
def test_temperature_moves_entropy_to_its_target(entropy: float, grows: bool) -> None:
    """Target -2: an entropy of -3 is too low, so that a step of gradient descent must raise the temperature."""
    log_alpha = torch.tensor(math.log(0.1), requires_grad=True)
    log_prob = torch.full((B, 1), -entropy)
    temperature_loss(log_alpha.exp(), log_prob, -2.0).mean().backward()
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == pytest.approx(0.1 * (entropy + 2.0))
    assert (log_alpha.grad.item() < 0) is grows


def test_gradient_of_the_least_critic_reaches_that_critic_alone() -> None:
    q = torch.tensor([[[1.0], [5.0]], [[2.0], [4.0]]], requires_grad=True)
    soft_policy_loss(q, torch.zeros(2, 1), 0.1).sum().backward()
    assert q.grad is not None
    assert q.grad.squeeze(-1).tolist() == [[-1.0, 0.0], [0.0, -1.0]]


def test_no_loss_knows_of_truncation() -> None:
    """A time limit bootstraps: there is nothing a loss could do with it."""
    names = {name for loss in losses.__all__ for name in inspect.signature(getattr(losses, loss)).parameters}
    assert "terminated" in names and not names & {"truncated", "done"}
