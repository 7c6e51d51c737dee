from __future__ import annotations

import math

import torch
from torch.autograd import gradcheck
from torch.distributions import Independent, Normal

from lit_mbrl.losses import bound_penalty, bounded_log_variance, ensemble_squared_error, gaussian_nll

E, B, D = 3, 5, 4


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_likelihood_is_torch_s_and_so_are_the_gradients_of_the_bounds() -> None:
    mean, raw, target = double(E, B, D), double(E, B, D), double(E, B, D)
    low = (-1.0 + 0.1 * torch.randn(D, dtype=torch.float64)).requires_grad_()
    high = (0.5 + 0.1 * torch.randn(D, dtype=torch.float64)).requires_grad_()
    inputs = (mean, raw, low, high)
    ours = gaussian_nll(mean, bounded_log_variance(raw, low, high), target)

    capped = high - torch.log1p(torch.exp(high - raw))
    log_var = low + torch.log1p(torch.exp(capped - low))
    density = Independent(Normal(mean, (log_var / 2).exp()), 1)
    theirs = (-2.0 * density.log_prob(target) / D - math.log(2.0 * math.pi)).unsqueeze(-1)

    assert ours.shape == (E, B, 1)
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(
        torch.autograd.grad(ours.sum(), inputs), torch.autograd.grad(theirs.sum(), inputs), strict=True
    ):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected)


def test_gradients_of_likelihood_and_bounds() -> None:
    assert gradcheck(gaussian_nll, (double(2, D), double(2, D), double(2, D)))
    assert gradcheck(bounded_log_variance, (double(2, D), double(D), double(D)))


def test_log_variance_keeps_its_bounds_and_its_gradient() -> None:
    raw = torch.linspace(-25.0, 25.0, 51, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    low, high = torch.tensor([-10.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    found = bounded_log_variance(raw, low, high)
    excess = math.log1p(math.exp(-10.5))
    assert found.min() > -10.0 and found.max() <= 0.5 + excess
    assert (found.diff(dim=0) > 0).all()  # rises everywhere: no gradient is cut off
    inside = (raw > -5.5) & (raw < -3.5)
    torch.testing.assert_close(found[inside], raw[inside], atol=0.02, rtol=0.0)


def test_penalty_draws_the_bounds_together() -> None:
    low, high = double(D), double(D)
    penalty = bound_penalty(low, high)
    torch.testing.assert_close(penalty, 0.01 * high.sum() - 0.01 * low.sum())
    down, up = torch.autograd.grad(penalty, (low, high))
    assert (down == -0.01).all() and (up == 0.01).all()


def test_squared_error_is_the_likelihood_of_unit_variance() -> None:
    mean, target = double(E, B, D), double(E, B, D)
    torch.testing.assert_close(ensemble_squared_error(mean, target), gaussian_nll(mean, torch.zeros_like(mean), target))
