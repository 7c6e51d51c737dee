"""The soft-optimal bandit: reward `-k/2 (a - a*)^2` has the optimal policy `N(a*, alpha / k)`.

This fixes the sign and the scale of the temperature. Expectations over the Gaussian are exact: every integrand here is
a polynomial of low degree in the noise, or smooth enough for Gauss-Hermite quadrature.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_mbrl.losses import soft_policy_loss, temperature_loss
from lit_mbrl.networks import TanhGaussianActor

K, BEST, ALPHA = 3.0, 0.7, 0.2
NODES, WEIGHTS = (torch.as_tensor(a).unsqueeze(-1) for a in np.polynomial.hermite_e.hermegauss(120))
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def gaussian_loss(mean: Tensor, log_std: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Expected soft policy loss and entropy of `N(mean, std)` with the exact Q of the bandit."""
    action = mean + log_std.exp() * NODES
    log_prob = -0.5 * NODES.square() - log_std - 0.5 * math.log(2 * math.pi)
    q = -0.5 * K * (action - BEST).square()
    loss = soft_policy_loss(torch.stack([q, q]), log_prob, alpha)
    return (WEIGHTS * loss).sum(), -(WEIGHTS * log_prob).sum()


def parameters(mean: float, std: float) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(mean, dtype=torch.float64, requires_grad=True),
        torch.tensor(math.log(std), dtype=torch.float64, requires_grad=True),
    )


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.5])
def test_the_optimum_is_stationary_and_a_minimum(alpha: float) -> None:
    optimum = parameters(BEST, math.sqrt(alpha / K))
    loss, _ = gaussian_loss(*optimum, alpha)
    gradient = torch.autograd.grad(loss, optimum)
    torch.testing.assert_close(torch.stack(gradient), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    # The least value of E[alpha log pi - Q] is -alpha log of the integral of exp(Q / alpha).
    assert loss.item() == pytest.approx(-alpha * 0.5 * math.log(2 * math.pi * alpha / K), abs=1e-12)
    for mean, std in [(BEST + 0.1, 1.0), (BEST - 0.1, 1.0), (BEST, 1.1), (BEST, 0.9)]:
        assert gaussian_loss(*parameters(mean, std * math.sqrt(alpha / K)), alpha)[0].item() > loss.item()


def test_gradient_against_the_analytic_one() -> None:
    """E[alpha log pi - Q] = -alpha log std + k/2 ((mean - a*)^2 + std^2) + const."""
    mean, log_std = parameters(-0.4, 1.3)
    gradient = torch.autograd.grad(gaussian_loss(mean, log_std, ALPHA)[0], (mean, log_std))
    assert gradient[0].item() == pytest.approx(K * (-0.4 - BEST), rel=1e-12)
    assert gradient[1].item() == pytest.approx(-ALPHA + K * 1.3**2, rel=1e-12)


def test_descent_with_the_temperature_finds_the_target_entropy() -> None:
    """Policy and temperature together: the optimum has entropy 1/2 log(2 pi e alpha / k), the target at one alpha."""
    target = -0.6
    mean, log_std = parameters(-1.0, 0.5)
    log_alpha = torch.tensor(math.log(0.9), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([mean, log_std], lr=0.5)
    temperature = torch.optim.SGD([log_alpha], lr=2.0)
    for _ in range(800):
        optimizer.zero_grad()
        loss, entropy = gaussian_loss(mean, log_std, log_alpha.exp().item())
        loss.backward()
        optimizer.step()
        temperature.zero_grad()
        temperature_loss(log_alpha.exp(), -entropy.reshape(1, 1), target).mean().backward()
        temperature.step()
    alpha = K * math.exp(2 * target) / (2 * math.pi * math.e)
    assert log_alpha.exp().item() == pytest.approx(alpha, rel=1e-6)
    assert entropy.item() == pytest.approx(target, abs=1e-6)
    assert mean.item() == pytest.approx(BEST, abs=1e-6)
    assert log_std.exp().item() == pytest.approx(math.sqrt(alpha / K), rel=1e-6)


def squashed(mean: float, log_std: float) -> TanhGaussianActor:
    actor = TanhGaussianActor(1, 1, [], log_std_squash="clamp").double()
    linear = actor.net[0]
    assert isinstance(linear, nn.Linear)
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_(torch.tensor([mean, log_std], dtype=torch.float64))
    return actor


def squashed_loss(actor: TanhGaussianActor, mean: float, log_std: float) -> Tensor:
    """Expected soft policy loss where `Q / alpha` is the log-density of the tanh-Gaussian `(mean, log_std)`."""
    action, log_prob = actor.sample(torch.zeros_like(NODES), NODES)
    pre_tanh = torch.atanh(action)
    normal = -0.5 * ((pre_tanh - mean) / math.exp(log_std)).square() - log_std - 0.5 * math.log(2 * math.pi)
    q = ALPHA * (normal - torch.log1p(-action.square()))
    return (WEIGHTS * soft_policy_loss(q.unsqueeze(0), log_prob, ALPHA)).sum()


def test_the_squashed_policy_finds_its_own_density() -> None:
    """Eq. 7 is a KL divergence: zero, and stationary, where the policy is proportional to exp(Q / alpha)."""
    actor = squashed(0.4, -1.2)
    loss = squashed_loss(actor, 0.4, -1.2)
    gradients = torch.autograd.grad(loss, list(actor.parameters()))
    assert loss.item() == pytest.approx(0.0, abs=1e-10)
    assert max(g.abs().max().item() for g in gradients) < 1e-9
    elsewhere = squashed_loss(squashed(0.1, -0.9), 0.4, -1.2).item()
    # tanh is one-to-one: the divergence is that of the two Gaussians before it.
    kl = (-1.2 + 0.9) + (math.exp(-1.8) + 0.3**2) / (2 * math.exp(-2.4)) - 0.5
    assert elsewhere == pytest.approx(ALPHA * kl, rel=1e-9)
