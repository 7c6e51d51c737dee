"""The policy gradient's loss: its gradient beside the one written down, and its constant."""

from __future__ import annotations

import torch

from lit_mbrl.losses import policy_gradient_loss


def test_gradient_of_a_softmax_policy_is_the_one_written_down() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    action, advantage = torch.tensor([0, 2, 1, 1, 0]), torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    log_prob = logits.log_softmax(-1).gather(-1, action.unsqueeze(-1))
    policy_gradient_loss(log_prob, advantage).sum().backward()
    # d log pi(a) / d logits = onehot(a) - pi
    expected = -(torch.eye(3, dtype=torch.float64)[action] - logits.detach().softmax(-1)) * advantage.detach()
    torch.testing.assert_close(logits.grad, expected)
    assert advantage.grad is None
