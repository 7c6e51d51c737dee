"""RMSProp with epsilon inside of the root: beside its equation, beside torch's, and resumed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_mbrl.training.rmsprop import RMSProp


def steps(optimizer: torch.optim.Optimizer, parameter: Tensor, gradients: list[Tensor]) -> Tensor:
    """The parameter after a step along each gradient."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_steps_are_the_paper_s_equation() -> None:
    gradients = [[0.3, -2.0], [0.1, 0.5], [-0.2, 0.0]]
    lr, alpha, eps = 0.1, 0.9, 0.01
    theta, square = [1.0, -1.0], [0.0, 0.0]
    for gradient in gradients:
        for i, g in enumerate(gradient):
            square[i] = alpha * square[i] + (1 - alpha) * g * g
            theta[i] -= lr * g / math.sqrt(square[i] + eps)
    parameter = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    found = steps(
        RMSProp([parameter], lr=lr, alpha=alpha, eps=eps), parameter, [torch.tensor(g).double() for g in gradients]
    )
    torch.testing.assert_close(found, torch.tensor(theta, dtype=torch.float64))


@pytest.mark.parametrize(("eps", "same"), [(1e-16, True), (1e-2, False)])
def test_epsilon_s_place_is_all_that_differs_from_torch(eps: float, same: bool) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(4, dtype=torch.float64) for _ in range(5)]
    found = []
    for kind in (RMSProp, torch.optim.RMSprop):
        parameter = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        found.append(steps(kind([parameter], lr=0.1, alpha=0.9, eps=eps), parameter, gradients))
    assert torch.allclose(*found, atol=1e-6) is same


def test_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(3) for _ in range(6)]
    whole = torch.zeros(3, requires_grad=True)
    expected = steps(RMSProp([whole]), whole, gradients)
    part = torch.zeros(3, requires_grad=True)
    first = RMSProp([part])
    steps(first, part, gradients[:3])
    second = RMSProp([part])
    second.load_state_dict(first.state_dict())
    assert torch.equal(steps(second, part, gradients[3:]), expected)


def test_leaves_out_what_is_not_finite_or_has_no_gradient() -> None:
    moved, idle = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = RMSProp([moved, idle])
    moved.grad = torch.ones(2)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert not moved.any() and not optimizer.state
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert moved.all() and not idle.any()
