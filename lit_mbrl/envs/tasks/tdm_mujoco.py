"""MuJoCo simulators of the tasks of temporal difference models: see `tdm.py`. Importing this file imports MuJoCo."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv
from gymnasium.spaces import Box, Dict

from lit_mbrl.envs.tasks import rewards

_GEAR = 30.0  # of the ant's motors
_LOWEST_TIP = -0.25  # the table is at -0.325


class _GoalBody(MujocoEnv):
    """A body whose state is to come near a goal, which differs in every episode."""

    goal: np.ndarray
    reward: Any = staticmethod(rewards.goal_distance)

    def observe(self) -> np.ndarray:
        """Returns the observation `[O]` of the simulator's state."""
        raise NotImplementedError

    def achieve(self, observation: np.ndarray) -> np.ndarray:
        """Returns the goal `[G]` that an observation has achieved."""
        raise NotImplementedError

    def draw_goal(self) -> np.ndarray:
        """Draws a goal `[G]`, and leaves the body as it is."""
        raise NotImplementedError

    def set_space(self) -> None:
        """Sets the observation space, once the simulator is there."""
        seen = self.observe()
        spaces = [Box(-np.inf, np.inf, part.shape, np.float64) for part in (seen, self.achieve(seen))]
        self.observation_space = Dict({"observation": spaces[0], "achieved_goal": spaces[1], "desired_goal": spaces[1]})

    def reset_model(self) -> dict[str, np.ndarray]:
        """Sets the body as Gymnasium does, and draws a goal."""
        super().reset_model()
        self.goal = self.draw_goal()
        return self.observe_goals()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """Gymnasium's step with the goal's reward."""
        _, _, terminated, truncated, info = super().step(action)
        seen = self.observe_goals()
        reward = self.reward(seen["achieved_goal"], seen["desired_goal"])
        return seen, float(reward[0]), bool(terminated), truncated, info

    def observe_goals(self) -> dict[str, np.ndarray]:
        """Returns observation, achieved and desired goal."""
        seen = self.observe()
        return {"observation": seen, "achieved_goal": self.achieve(seen), "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Reward `[...]` of goals `[..., G]`, as Gymnasium's convention has it."""
        return self.reward(achieved_goal, desired_goal)[..., 0]


class HalfCheetahVelocity(_GoalBody, HalfCheetahEnv):
    """A cheetah that is to run at a velocity, forwards or backwards.

    Args:
        max_speed: of the goals, in metres per second.
    """

    def __init__(self, max_speed: float = 6.0, **kwargs: Any) -> None:
        self._max_speed = float(max_speed)
        super().__init__(**kwargs)
        self.set_space()

    def observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[1:], self.data.qvel])

    def achieve(self, observation: np.ndarray) -> np.ndarray:
        return observation[8:9].copy()

    def draw_goal(self) -> np.ndarray:
        return self.np_random.uniform(-self._max_speed, self._max_speed, 1)


class AntPosition(_GoalBody, AntEnv):
    """An ant that is to walk to a place.

    Args:
        max_distance: of the goals along each axis, in metres.
    """

    def __init__(self, max_distance: float = 6.0, **kwargs: Any) -> None:
        self._max_distance = float(max_distance)
        super().__init__(**kwargs)
        self.model.actuator_gear[:, 0] = _GEAR
        self.set_space()

    def observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[2:], self.data.qvel, self.get_body_com("torso")])

    def achieve(self, observation: np.ndarray) -> np.ndarray:
        return observation[27:29].copy()

    def draw_goal(self) -> np.ndarray:
        return self.np_random.uniform(-self._max_distance, self._max_distance, 2)


class Reacher(_GoalBody, PusherEnv):
    """An arm whose fingertip is to reach a place.

    Args:
        goal: the fingertip's place, or the whole state, `tip` or `state`.

    Raises:
        ValueError: for another goal.
    """

    reward = staticmethod(rewards.fingertip_goal)

    def __init__(self, goal: Literal["tip", "state"] = "tip", **kwargs: Any) -> None:
        if goal not in ("tip", "state"):
            raise ValueError(f"goal={goal!r} is neither 'tip' nor 'state'")
        self._whole = goal == "state"
        super().__init__(**kwargs)
        for geom in np.flatnonzero(self.model.geom_bodyid == self.model.body("object").id):
            self.model.geom_contype[geom] = self.model.geom_conaffinity[geom] = 0
        self.set_space()

    def observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[:7], self.data.qvel[:7], self.get_body_com("tips_arm")])

    def achieve(self, observation: np.ndarray) -> np.ndarray:
        return observation.copy() if self._whole else observation[14:17].copy()

    def draw_goal(self) -> np.ndarray:
        qpos, qvel, tip = self.data.qpos.copy(), self.data.qvel.copy(), self.get_body_com("tips_arm")
        low, high = self.model.jnt_range[:7].T
        above = False
        while not above:
            pose = qpos.copy()
            pose[:7] = self.np_random.uniform(low, high)
            self.set_state(pose, np.zeros(self.model.nv))
            above = tip[2] > _LOWEST_TIP
        goal = self.achieve(self.observe())
        self.set_state(qpos, qvel)
        return goal


class Pusher(_GoalBody, PusherEnv):
    """An arm that is to push a puck to the target."""

    reward = staticmethod(rewards.pusher_goal)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_space()

    def observe(self) -> np.ndarray:
        arm = self.data.qpos[:7], self.data.qvel[:7]
        return np.concatenate([*arm, self.get_body_com("tips_arm"), self.get_body_com("object")])

    def achieve(self, observation: np.ndarray) -> np.ndarray:
        return observation[14:20].copy()

    def draw_goal(self) -> np.ndarray:
        return np.tile(self.get_body_com("goal"), 2)
