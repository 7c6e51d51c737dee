"""An environment that behaves, but for one fault at one of its steps. Importing this module registers it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

MISBEHAVING = "tests.helpers.misbehaving:Misbehaving-v0"


def sleep(*_: Any) -> None:
    """Never returns."""
    while True:
        time.sleep(0.05)


def sleep_deaf(*_: Any) -> None:
    """Never returns, and swallows whatever is raised in it."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


def fork(env: Misbehaving, *_: Any) -> None:
    """Lets a second process go on with the caller's work."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)


def fail(*_: Any) -> None:
    raise ValueError("the simulator\nis on fire")


def fail_to_write(*_: Any) -> None:
    raise OSError(28, "No space left on device", "/sim/cache")


class Strange(BaseException):
    """Not even an Exception."""


def fail_strangely(*_: Any) -> None:
    raise Strange("strange")


# Which part of a step's outcome is replaced by what.
OUTCOMES: dict[str, tuple[int, Any]] = {
    "nan_observation": (0, np.array([0.0, np.nan, 0.0], np.float32)),
    "infinite_observation": (0, np.array([0.0, 0.0, -np.inf], np.float32)),
    "wide_observation": (0, np.zeros(4, np.float32)),
    "row_observation": (0, np.zeros((1, 3), np.float32)),
    "scalar_observation": (0, np.float32(0.0)),
    "complex_observation": (0, np.zeros(3, np.complex64)),
    "text_observation": (0, np.array(["a", "b", "c"])),
    "list_observation": (0, [0.0, 0.0, 0.0]),
    "no_observation": (0, None),
    "nan_reward": (1, float("nan")),
    "infinite_reward": (1, np.float64(np.inf)),
    "huge_reward": (1, 10**400),
    "array_reward": (1, np.zeros(1, np.float32)),
    "no_reward": (1, None),
    "text_reward": (1, "1.0"),
    "complex_reward": (1, 1.0 + 0.0j),
    "bool_reward": (1, True),
    "int_terminated": (2, 0),
    "array_terminated": (2, np.zeros(1, bool)),
    "no_truncated": (3, None),
    "no_info": (4, None),
}
ACTIONS: dict[str, Callable] = {
    "fail": fail,
    "fail_to_write": fail_to_write,
    "fail_strangely": fail_strangely,
    "exit": lambda *_: sys.exit(0),
    "sleep": sleep,
    "sleep_deaf": sleep_deaf,
    "fork": fork,
    "die": lambda *_: os._exit(3),
}


class Misbehaving(gym.Env):
    """Observation [step, 0, 0]; the reward is 1; an episode is truncated after `length` steps.

    Args:
        fault: the name of an entry in `OUTCOMES` or `ACTIONS`; `"bare"`: a reset without info; `"four"`: a step of
            four values; `""`: none.
        at: so many steps of the object (or resets, where the fault is in those) are good.
        where: `"step"`, `"reset"`, `"close"` or `"init"`.
        once: the step alone; otherwise each one from there on.
        length: steps of an episode, None: no end.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(
        self, fault: str = "", at: int = 0, where: str = "step", once: bool = False, length: int | None = 20
    ) -> None:
        self.fault, self.at, self.where, self.once, self.length = fault, at, where, once, length
        self.total = self.now = self.resets = 0
        if where == "init":
            self._act()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.now = 0
        self.resets += 1
        if self.where == "reset" and self.resets > self.at:
            if self.fault in ACTIONS:
                self._act()
            elif self.fault == "bare":
                return np.zeros(3, np.float32)
            elif self.fault in OUTCOMES and OUTCOMES[self.fault][0] == 0:
                return OUTCOMES[self.fault][1], {}
            elif self.fault == "no_info":
                return np.zeros(3, np.float32), None
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.total += 1
        self.now += 1
        truncated = self.length is not None and self.now >= self.length
        outcome: list[Any] = [np.array([self.now, 0, 0], np.float32), 1.0, False, truncated, {}]
        due = self.total == self.at + 1 if self.once else self.total > self.at
        if self.where == "step" and due:
            if self.fault in ACTIONS:
                self._act()
            elif self.fault in OUTCOMES:
                part, value = OUTCOMES[self.fault]
                outcome[part] = value
            elif self.fault == "four":
                return tuple(outcome[:4])
        return tuple(outcome)

    def close(self) -> None:
        if self.where == "close" and self.total >= self.at:
            self._act()

    def _act(self) -> None:
        ACTIONS[self.fault](self)

    def extra_state(self) -> dict[str, Any]:
        return {"total": self.total, "now": self.now, "resets": self.resets}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.total, self.now, self.resets = (int(state[name]) for name in ("total", "now", "resets"))


if "Misbehaving-v0" not in gym.registry:
    gym.register("Misbehaving-v0", entry_point=Misbehaving)
