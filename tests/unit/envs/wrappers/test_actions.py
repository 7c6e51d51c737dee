"""Whatever the bounds and the type of an action, the agent's is in [-1, 1] and the environment's is one of its own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete, Space

from lit_mbrl.envs import EnvConfig, describe, make_gym
from lit_mbrl.utils.errors import OptionError

WIDEST = np.finfo(np.float32).max


class Echo(gym.Env):
    """Keeps the last action, which has to be one of its own."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, space: Space) -> None:
        self.action_space = space
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.last = action
        return np.zeros(1, np.float32), 0.0, False, False, {}


if "Echo-v0" not in gym.registry:
    gym.register("Echo-v0", entry_point=Echo)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (Box(0, 5, (1,), np.int64), [-1.0, -0.7, -0.1, 0.3, 1.0, 1.5], [0, 1, 2, 3, 5, 5]),
        (Box(0, 255, (1,), np.uint8), [-1.0, 0.0, 1.0], [0, 128, 255]),
        (Box(-3, 3, (1,), np.int32), [-1.0, 0.0, 0.34, 1.0], [-3, 0, 1, 3]),
        (Box(0.0, 5.0, (1,), np.float32), [-1.0, 0.0, 1.0], [0.0, 2.5, 5.0]),
        (Box(-1.0, 1.0, (1,), np.float64), [-1.0, 0.5, 1.0], [-1.0, 0.5, 1.0]),
        (Box(-WIDEST, WIDEST, (1,), np.float32), [-1.0, 0.0, 1.0], [-WIDEST, 0.0, WIDEST]),
        (Box(1000.0, 1000.5, (1,), np.float32), [-1.0, 0.0, 1.0], [1000.0, 1000.25, 1000.5]),
    ],
)
def test_one_entry(space: Box, actions: list[float], expected: list[float]) -> None:
    env = make_gym("Echo-v0", space=space)
    assert env.action_space == Box(-1.0, 1.0, (1,), env.action_space.dtype)
    env.reset(seed=0)
    found = []
    for action in actions:
        env.step(np.array([action], np.float32))
        found.append(env.unwrapped.last.item())
    assert found == expected


def test_an_entry_without_a_choice_is_its_only_value() -> None:
    env = make_gym("Echo-v0", space=Box(np.array([-2.0, 3.0]), np.array([2.0, 3.0]), dtype=np.float64))
    env.reset(seed=0)
    env.step(np.array([-0.5, 0.7], np.float32))
    assert env.unwrapped.last.tolist() == [-1.0, 3.0]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Box(-np.inf, np.inf, (1,), np.float32), "finite action bounds"),
        (Box(np.array([0.0, -np.inf]), np.array([1.0, 1.0]), dtype=np.float64), "finite action bounds"),
        (Box(-1.7e308, 1.7e308, (1,), np.float64), "difference is finite"),
        (Box(2.0, 2.0, (2,), np.float32), "actions that can be chosen"),
        (Box(-(2**60), 2**60, (1,), np.int64), "integer actions up to 2**53"),
        (Box(-1.0, 1.0, (2, 2), np.float32), "action is a vector or one of n"),
        (Box(-1.0, 1.0, (), np.float32), "action is a vector or one of n"),
        (Box(-1.0, 1.0, (0,), np.float32), "actions that can be chosen"),
        (MultiDiscrete([3, 3]), "action is a vector or one of n"),
        (None, "whose action_space is one of Gymnasium's, not None"),
    ],
)
def test_what_has_no_such_map_is_refused_in_one_line(space: Any, expected: str) -> None:
    with pytest.raises(OptionError) as refused:
        describe(EnvConfig("Echo-v0", {"space": space}))
    assert expected in str(refused.value) and "\n" not in str(refused.value)
