"""Policies of distributions: what they do to a known state and to samples, their bounds, and fresh parameters."""

from __future__ import annotations

import pytest
import torch

from lit_mbrl.models.moment_matching import Gaussian
from lit_mbrl.models.moment_policies import LinearPolicy, RBFPolicy

Policy = LinearPolicy | RBFPolicy


def make(kind: str) -> Policy:
    torch.manual_seed(0)
    policy: Policy = RBFPolicy(3, 2, 10) if kind == "rbf" else LinearPolicy(3, 2)
    policy.initialize(torch.randn(40, 3).double())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return policy


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_a_known_state_has_the_policy_s_action(kind: str) -> None:
    policy, x = make(kind), torch.randn(4, 3).double()
    moments = policy.frozen()(Gaussian(x, torch.zeros(4, 3, 3).double()))
    torch.testing.assert_close(moments.mean, policy(x))
    assert moments.covariance.abs().max() < 1e-9
    at = x[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(policy(at.unsqueeze(0))[0, 1], at)
    torch.testing.assert_close(moments.gain[0, :, 1], slope)


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_moments_against_samples(kind: str) -> None:
    """The policy's output before the sine is taken for Gaussian, which it nearly is where the state is nearly known."""
    policy, mean, std = make(kind), torch.tensor([0.2, -0.4, 0.1]).double(), 0.1
    moments = policy.frozen()(Gaussian(mean, std**2 * torch.eye(3).double()))
    with torch.no_grad():
        x = mean + std * torch.randn(1_000_000, 3).double()
        action = policy(x)
    torch.testing.assert_close(moments.mean, action.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(moments.covariance, torch.cov(action.T), atol=2e-3, rtol=0.05)
    cross = (x - mean).T @ (action - action.mean(0)) / len(x)
    torch.testing.assert_close(std**2 * moments.gain, cross, atol=5e-4, rtol=0.05)


@pytest.mark.parametrize("kind", ["rbf", "linear"])
def test_actions_are_bounded_and_fresh_policies_nearly_do_nothing(kind: str) -> None:
    policy = make(kind)
    seen = torch.randn(50, 3).double() * torch.tensor([1.0, 100.0, 0.01])
    policy.initialize(seen)
    assert 0.0 < policy(seen).abs().mean() < 0.5
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter *= 5
    assert policy(seen).abs().max() <= 1.0


def test_radial_basis_functions_go_through_their_targets_nearly() -> None:
    policy = RBFPolicy(2, 1, 6)
    policy.initialize(torch.randn(6, 2).double())
    with torch.no_grad():
        policy.centres.copy_(3 * torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [0, 2]]).double())
        policy.targets.copy_(torch.linspace(-0.5, 0.5, 6))
        policy.unit.fill_(1.0)
    torch.testing.assert_close(policy(policy.centres)[:, 0], policy.targets[0].sin() / 1.01, atol=0.02, rtol=0)
