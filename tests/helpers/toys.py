"""Tiny environments whose every number can be predicted. Importing this module registers them."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

TOY = "tests.helpers.toys:Toy-v0"
FAULTY = "tests.helpers.toys:Faulty-v0"
GOAL = "tests.helpers.toys:Goal-v0"
PICTURE = "tests.helpers.toys:Picture-v0"


class Toy(gym.Env):
    """Observation [tag, t, length]: a random tag per episode, the step, and the random length at which it terminates.

    Actions lie in [0, 4] and the reward is the action as the environment sees it.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(0.0, 4.0, (1,), np.float32)

    def __init__(self, longest: int = 5) -> None:
        self._longest = longest
        self._state = np.zeros(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._state = np.array([self.np_random.random(), 0.0, self.np_random.integers(2, self._longest + 1)])
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._state[1] += 1
        return self._state.copy(), float(action[0]), bool(self._state[1] >= self._state[2]), False, {}

    def extra_state(self) -> dict[str, Any]:
        return {"state": self._state.copy()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._state = state["state"].copy()


class Faulty(gym.Env):
    """Raises on actions above 0.5 and kills its process on actions below -0.5."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        if action[0] > 0.5:
            raise ArithmeticError("the action is too large")
        if action[0] < -0.5:
            os._exit(3)
        return np.zeros(1, np.float32), 0.0, False, False, {}


class Goal(gym.Env):
    """A point on a line that is to reach a goal: observations as `gymnasium.GoalEnv` has them, and one of three phases.

    The action moves the point by as much; the reward is -|point - goal|. After `wrong_after` steps an observation lacks
    its goal.
    """

    observation_space = Dict(
        {
            "observation": Dict({"speed": Box(-1.0, 1.0, (1,), np.float64), "phase": Discrete(3, start=1)}),
            "achieved_goal": Box(-9.0, 9.0, (1,), np.float64),
            "desired_goal": Box(-9.0, 9.0, (1,), np.float64),
        }
    )
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, wrong_after: int | None = None) -> None:
        self._wrong_after = wrong_after
        self._point = self._goal = self._speed = 0.0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self._point, self._speed, self._steps = 0.0, 0.0, 0
        self._goal = float(self.np_random.uniform(-2, 2))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self._steps += 1
        self._speed = float(action[0])
        self._point = float(np.clip(self._point + self._speed, -9.0, 9.0))
        return self._observation(), -abs(self._point - self._goal), False, self._steps >= 10, {}

    def _observation(self) -> dict[str, Any]:
        phase = 1 + min(self._steps, 2)
        seen = {
            "observation": {"speed": np.array([self._speed]), "phase": phase},
            "achieved_goal": np.array([self._point]),
            "desired_goal": np.array([self._goal]),
        }
        if self._wrong_after is not None and self._steps >= self._wrong_after:
            del seen["desired_goal"]
        return seen

    def extra_state(self) -> dict[str, Any]:
        return {"numbers": np.array([self._point, self._goal, self._speed, self._steps])}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._point, self._goal, self._speed, steps = state["numbers"].tolist()
        self._steps = int(steps)


class Picture(gym.Env):
    """A picture [4, 6, 3] whose colours are the step, the last action and the episode's tag; actions are 1, 2 or 3.

    The reward is the step. An episode terminates after `longest` steps.
    """

    observation_space = Box(0, 255, (4, 6, 3), np.uint8)
    action_space = Discrete(3, start=1)

    def __init__(self, longest: int = 5) -> None:
        self._longest = longest
        self._state = np.zeros(3, np.int64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._state = np.array([0, 0, self.np_random.integers(256)])
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self._state[:2] = self._state[0] + 1, action
        step = int(self._state[0])
        return self._picture(), float(step), step >= self._longest, False, {}

    def _picture(self) -> np.ndarray:
        return np.broadcast_to(self._state, (4, 6, 3)).astype(np.uint8)

    def extra_state(self) -> dict[str, Any]:
        return {"state": self._state.copy()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._state = state["state"].copy()


for _name, _class in (("Toy", Toy), ("Faulty", Faulty), ("Goal", Goal), ("Picture", Picture)):
    if f"{_name}-v0" not in gym.registry:
        gym.register(f"{_name}-v0", entry_point=_class)
