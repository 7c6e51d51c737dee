"""The saturating cost: against samples, its limits, and the reward of a task."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.losses import KNOWN_COSTS, SaturatingCost, saturating_cost, saturating_cost_moments
from lit_mbrl.utils.errors import OptionError


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


@pytest.mark.parametrize("name", KNOWN_COSTS)
def test_known_costs_are_one_minus_the_reward(name: str) -> None:
    spec, cost = describe(EnvConfig(name)), KNOWN_COSTS[name]
    observation, action = torch.randn(2, 50, spec.observation_dim).double(), torch.rand(50, spec.action_dim) * 2 - 1
    angle = observation[1][:, list(spec.features.angles)]
    z = torch.cat([observation[1], angle.sin(), angle.cos()], -1)
    distance = z @ torch.tensor(cost.matrix).double().T - torch.tensor(cost.target)
    found = saturating_cost(distance, cost.width) + cost.action_weight * action.square().sum(-1)
    assert spec.reward is not None
    torch.testing.assert_close(1 - spec.reward(observation[0], action, observation[1])[:, 0], found)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"target": (0.0, 1.0)}, r"--model.cost.target=\[0.0, 1.0\]: expected 1 numbers"),
        ({"width": 0.0}, "--model.cost.width=0.0: expected a number > 0"),
        ({"action_weight": -1.0}, "--model.cost.action_weight=-1.0: expected a number >= 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        SaturatingCost(**({"matrix": ((1.0, 0.0),), "target": (0.0,), "width": 0.5} | options))
