from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from lit_mbrl.losses import action_value, double_q_value, huber_loss, td_priority


def test_action_value_and_double_q_value_by_hand() -> None:
    online, target = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]]), torch.tensor([[7.0, 8.0, 9.0], [1.0, 2.0, 3.0]])
    assert action_value(online, torch.tensor([2, 0])).tolist() == [[2.0], [5.0]]
    assert double_q_value(online, target).tolist() == [[8.0], [1.0]]
    assert torch.equal(double_q_value(target, target), target.amax(-1, keepdim=True))


@pytest.mark.parametrize("delta", [1.0, 0.3])
def test_gradient_of_the_huber_loss_is_the_clipped_error(delta: float) -> None:
    q = torch.linspace(-3, 3, 9, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    target = torch.zeros_like(q).requires_grad_()
    huber_loss(q, target, delta).sum().backward()
    torch.testing.assert_close(q.grad, q.detach().clamp(-delta, delta))
    assert target.grad is None


def test_losses_pass_gradcheck() -> None:
    q, target = torch.randn(5, 1, dtype=torch.float64, requires_grad=True), torch.randn(5, 1, dtype=torch.float64)
    for delta in (1.0, None):
        assert gradcheck(lambda q, delta=delta: huber_loss(q, target, delta), (q,))


def test_priority_is_the_error_s_size_and_never_zero() -> None:
    priority = td_priority(torch.tensor([[-2.0], [0.0]], requires_grad=True), 0.5)
    assert priority.tolist() == [2.5, 0.5] and not priority.requires_grad
