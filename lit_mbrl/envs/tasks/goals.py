"""Tasks with goals, in Gymnasium's convention: observations are `observation`, `achieved_goal`, `desired_goal`.

| name | steps | observation | actions | reward |
|---|---|---|---|---|
| `goals/BitFlip` | `bits` | the bits, twice, and the goal's bits | one of `bits` | 0 in the goal, else -1 |

Bit flipping is section 3.1's example of Andrychowicz et al. 2017 (arXiv 1707.01495): start and goal are uniform, an
action flips a bit. Random actions practically never see a reward other than -1 for 15 bits and more.

Readings: an episode terminates in its goal, and else is truncated after as many steps as there are bits; start and goal
differ in at least one bit.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

TASKS = ("BitFlip",)


def make(task: str, max_episode_steps: int | None = None, bits: int = 15) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the limit of `bits` steps.
        bits: number of bits.

    Raises:
        ValueError: if there is no bit.
    """
    return gym.wrappers.TimeLimit(BitFlip(bits), max_episode_steps or bits)


class BitFlip(gym.Env):
    """`bits` bits that are to become the goal's; an action flips one of them."""

    def __init__(self, bits: int = 15) -> None:
        if not isinstance(bits, int) or bits < 1:
            raise ValueError(f"bits={bits!r} is not an integer > 0")
        space = Box(0.0, 1.0, (bits,), np.float32)
        self.observation_space = Dict({"observation": space, "achieved_goal": space, "desired_goal": space})
        self.action_space = Discrete(bits)
        self._state = self._goal = np.zeros(bits, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Uniform bits and a uniform goal other than they."""
        super().reset(seed=seed)
        self._state, self._goal = self.np_random.integers(0, 2, (2, len(self._state))).astype(np.float32)
        while np.array_equal(self._state, self._goal):
            self._goal = self.np_random.integers(0, 2, len(self._state)).astype(np.float32)
        return self._observation(), {}

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        """Flips a bit."""
        self._state = self._state.copy()
        self._state[action] = 1.0 - self._state[action]
        reward = self.compute_reward(self._state, self._goal, {})
        return self._observation(), float(reward), bool(reward == 0.0), False, {}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Reward `[...]` of goals `[..., bits]`, as Gymnasium's convention has it."""
        return (achieved_goal == desired_goal).all(-1).astype(np.float32) - 1.0

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Whether the episode ends, `[...]`, of goals `[..., bits]`."""
        return (achieved_goal == desired_goal).all(-1)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"observation": self._state, "achieved_goal": self._state, "desired_goal": self._goal}

    def extra_state(self) -> dict[str, Any]:
        """The bits, for exact resume."""
        return {"state": self._state.copy(), "goal": self._goal.copy()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._state, self._goal = state["state"].copy(), state["goal"].copy()
