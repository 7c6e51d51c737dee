"""Tasks with goals, in Gymnasium's convention: observations are `observation`, `achieved_goal`, `desired_goal`.

| name | steps | observation | actions | reward |
|---|---|---|---|---|
| `goals/BitFlip` | `bits` | the bits, twice, and the goal's bits | one of `bits` | 0 in the goal, else -1 |
| `goals/PointMass` | 50 | position, velocity; goals are positions | a force | minus the distance |

Bit flipping is section 3.1's example of Andrychowicz et al. 2017 (arXiv 1707.01495): start and goal are uniform, an
action flips a bit. Random actions practically never see a reward other than -1 for 15 bits and more.

Readings: an episode terminates in its goal, and else is truncated after as many steps as there are bits; start and goal
differ in at least one bit.

The point mass is ours. With position p, velocity v in lengths per step and force u in [-1, 1]

    v' = 0.75 v + 0.05 u,    p' = p + v',

so that it is never faster than 0.2, and stops at walls at -2 and 2; start and goal are uniform in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from lit_mbrl.envs.tasks.rewards import goal_distance

TASKS = ("BitFlip", "PointMass")
_WALL, _START, _KEPT, _GAIN = 2.0, 1.0, 0.75, 0.05


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the task's limit.
        **kwargs: `bits` of `BitFlip`, `dimensions` of `PointMass`.

    Raises:
        TypeError: if an argument is unknown.
        ValueError: if there is no bit, or no dimension.
    """
    env: BitFlip | PointMass = BitFlip(**kwargs) if task == "BitFlip" else PointMass(**kwargs)
    return gym.wrappers.TimeLimit(env, max_episode_steps or env.steps)


class BitFlip(gym.Env):
    """`bits` bits that are to become the goal's; an action flips one of them."""

    def __init__(self, bits: int = 15) -> None:
        if not isinstance(bits, int) or bits < 1:
            raise ValueError(f"bits={bits!r} is not an integer > 0")
        self.steps = bits
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


class PointMass(gym.Env):
    """A mass that is to be pushed to a place."""

    steps = 50

    def __init__(self, dimensions: int = 2) -> None:
        if not isinstance(dimensions, int) or dimensions < 1:
            raise ValueError(f"dimensions={dimensions!r} is not an integer > 0")
        place = Box(-_WALL, _WALL, (dimensions,), np.float32)
        bound = np.repeat([_WALL, 1.0], dimensions).astype(np.float32)
        state = Box(-bound, bound, dtype=np.float32)
        self.observation_space = Dict({"observation": state, "achieved_goal": place, "desired_goal": place})
        self.action_space = Box(-1.0, 1.0, (dimensions,), np.float32)
        self._place = self._speed = self._goal = np.zeros(dimensions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """A uniform place, at rest, and a uniform goal."""
        super().reset(seed=seed)
        self._place, self._goal = self.np_random.uniform(-_START, _START, (2, len(self._place)))
        self._speed = np.zeros(len(self._place))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Pushes the mass."""
        self._speed = _KEPT * self._speed + _GAIN * np.clip(action, -1.0, 1.0)
        place = self._place + self._speed
        self._place = np.clip(place, -_WALL, _WALL)
        self._speed = np.where(place == self._place, self._speed, 0.0)
        return self._observation(), float(self.compute_reward(self._place, self._goal, {})), False, False, {}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Reward `[...]` of goals `[..., dimensions]`, as Gymnasium's convention has it."""
        return goal_distance(achieved_goal, desired_goal)[..., 0]

    def _observation(self) -> dict[str, np.ndarray]:
        place, goal = self._place.astype(np.float32), self._goal.astype(np.float32)
        state = np.concatenate([place, self._speed.astype(np.float32)])
        return {"observation": state, "achieved_goal": place, "desired_goal": goal}

    def extra_state(self) -> dict[str, Any]:
        """Place, velocity and goal, for exact resume."""
        return {"place": self._place.copy(), "speed": self._speed.copy(), "goal": self._goal.copy()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._place, self._speed, self._goal = (state[name].copy() for name in ("place", "speed", "goal"))
