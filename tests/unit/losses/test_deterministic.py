from __future__ import annotations

import math

import torch
from torch.autograd import gradcheck

from lit_mbrl.losses import dpg_loss, smoothed_action, td_target


def test_dpg_loss() -> None:
    q = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    assert torch.equal(dpg_loss(q), -q)
    assert gradcheck(dpg_loss, (q,))


def test_td_target_cuts_on_terminated_and_has_no_gradient() -> None:
    reward = torch.tensor([[1.0], [1.0]], requires_grad=True)
    next_q = torch.tensor([[math.nan], [2.0]], requires_grad=True)
    target = td_target(reward, torch.tensor([[True], [False]]), next_q, 0.5)
    assert target.tolist() == [[1.0], [2.0]] and not target.requires_grad


def test_smoothed_action_clips_noise_then_action() -> None:
    action = torch.tensor([[0.0, 0.0, 0.9, -0.9, 0.2]])
    noise = torch.tensor([[2.0, -2.0, 0.4, -0.4, 0.1]])
    expected = torch.tensor([[0.5, -0.5, 1.0, -1.0, 0.3]])
    torch.testing.assert_close(smoothed_action(action, noise, 0.5), expected, atol=1e-7, rtol=0)


def test_smoothed_action_gradcheck_inside_the_bounds() -> None:
    action = (0.4 * torch.rand(3, 2, dtype=torch.float64)).requires_grad_()
    noise = (0.3 * torch.rand(3, 2, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda a, n: smoothed_action(a, n, 0.5), (action, noise))
