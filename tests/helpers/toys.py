"""Tiny environments whose every number can be predicted. Importing this module registers them."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

TOY = "tests.helpers.toys:Toy-v0"
FAULTY = "tests.helpers.toys:Faulty-v0"
DICT = "tests.helpers.toys:Dict-v0"
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


class DictObservation(gym.Env):
    """An observation that is not one array."""

    observation_space = Dict({"a": Box(-1.0, 1.0, (1,), np.float32)})
    action_space = Box(-1.0, 1.0, (1,), np.float32)


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


for _name, _class in (("Toy", Toy), ("Faulty", Faulty), ("Dict", DictObservation), ("Picture", Picture)):
    if f"{_name}-v0" not in gym.registry:
        gym.register(f"{_name}-v0", entry_point=_class)
