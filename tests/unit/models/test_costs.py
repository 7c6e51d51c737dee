"""Costs as options: they are the rewards of tasks, and mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.losses import saturating_cost
from lit_mbrl.models.costs import KNOWN_COSTS, SaturatingCost
from lit_mbrl.utils.errors import OptionError


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
