"""The linear baseline finds what it can represent, and the least squares of what it cannot."""

from __future__ import annotations

import torch

from lit_mbrl.networks.linear_baseline import LinearBaseline


def test_it_finds_what_its_features_can_say() -> None:
    torch.manual_seed(0)
    baseline, observation = LinearBaseline(2), 2 * torch.randn(400, 2)
    step = torch.randint(100, (400, 1))
    assert baseline(observation, step).eq(0).all()
    t = step / 100
    target = 2 * observation[:, :1] - observation[:, 1:] ** 2 + 3 * t - 4 * t**2 + t**3 - 5
    baseline.fit(observation, step, target)
    torch.testing.assert_close(baseline(observation, step), target, atol=1e-3, rtol=1e-3)


def test_a_fit_is_ridge_regression() -> None:
    torch.manual_seed(0)
    baseline, observation, step = LinearBaseline(1, ridge=0.5), torch.randn(30, 1), torch.arange(30)[:, None]
    target = torch.randn(30, 1)
    baseline.fit(observation, step, target)
    features = baseline.features(observation, step).double()
    inverse = torch.linalg.inv(features.T @ features + 0.5 * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(baseline.weights.double(), inverse @ features.T @ target.double(), atol=1e-5, rtol=1e-4)


def test_far_observations_are_cut_and_constant_ones_do_no_harm() -> None:
    baseline = LinearBaseline(1)
    assert baseline.features(torch.tensor([[50.0]]), torch.tensor([[200]])).tolist() == [[10, 100, 2, 4, 8, 1]]
    baseline.fit(torch.ones(10, 1), torch.zeros(10, 1), torch.full((10, 1), 7.0))
    torch.testing.assert_close(baseline(torch.ones(1, 1), torch.zeros(1, 1)), torch.tensor([[7.0]]), rtol=1e-3, atol=0)
