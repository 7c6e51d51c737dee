"""The saturating cost: against samples, and its limits."""

from __future__ import annotations

import pytest
import torch

from lit_mbrl.losses import saturating_cost, saturating_cost_moments


def test_moments_against_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, root = torch.tensor([0.3, -0.2]).double(), torch.tensor([[0.5, 0.0], [0.2, 0.3]]).double()
    samples = mean + torch.randn(1_000_000, 2, generator=generator, dtype=torch.float64) @ root.T
    cost = saturating_cost(samples, 0.4)
    expected, variance = saturating_cost_moments(mean, root @ root.T, 0.4)
    torch.testing.assert_close(expected, cost.mean(), atol=0.002, rtol=0)
    torch.testing.assert_close(variance, cost.var(), atol=0.002, rtol=0)


def test_a_known_state_has_its_cost_and_no_variance() -> None:
    distance = torch.randn(5, 3).double()
    expected, variance = saturating_cost_moments(distance, torch.zeros(5, 3, 3).double(), 0.7)
    torch.testing.assert_close(expected, saturating_cost(distance, 0.7))
    torch.testing.assert_close(variance, torch.zeros(5).double())


def test_it_is_quadratic_near_the_target_and_one_far_away() -> None:
    near, far = torch.tensor([[1e-3, 2e-3]]).double(), torch.tensor([[9.0, 9.0]]).double()
    torch.testing.assert_close(saturating_cost(near, 0.5), near.square().sum(-1) / 0.5, rtol=1e-4, atol=0)
    assert saturating_cost(far, 0.5).item() == pytest.approx(1.0)
    assert saturating_cost(torch.tensor([0.5]), 0.5).item() == pytest.approx(0.39, abs=0.004)
