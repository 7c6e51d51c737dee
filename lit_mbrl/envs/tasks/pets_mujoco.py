"""MuJoCo simulators of PETS' tasks: see `pets.py`. Importing this file imports MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from lit_mbrl.envs.tasks import rewards

_ASSETS = Path(__file__).parent / "assets"
_MODES = ["human", "rgb_array", "depth_array", "rgbd_tuple"]


class _Body(MujocoEnv):
    """A body that takes `frame_skip` steps of the simulator per action and never terminates."""

    reward: Any

    def __init__(self, model: str, frame_skip: int, size: int, frames_per_second: int, **kwargs: Any) -> None:
        self.metadata = {"render_modes": _MODES, "render_fps": frames_per_second}
        space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        super().__init__(model, frame_skip, observation_space=space, **kwargs)
        self._high = float(self.action_space.high[0])

    def observe(self) -> np.ndarray:
        """Returns the observation `[O]` of the simulator's state."""
        raise NotImplementedError

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step; `terminated` is always False."""
        before = self.observe()
        self.do_simulation(action, self.frame_skip)
        after = self.observe()
        reward = self.reward(before, np.asarray(action, np.float64) / self._high, after)
        if self.render_mode == "human":
            self.render()
        return after, float(reward[0]), False, False, {}


class CartPole(_Body):
    """A pole that hangs from a cart and is to be swung up and balanced."""

    reward = staticmethod(rewards.cartpole)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(str(_ASSETS / "pets_cartpole.xml"), 2, 4, 25, **kwargs)

    def observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])

    def reset_model(self) -> np.ndarray:
        """Sets position and velocity with noise of standard deviation 0.1."""
        qpos = self.init_qpos + self.np_random.normal(0.0, 0.1, self.model.nq)
        self.set_state(qpos, self.init_qvel + self.np_random.normal(0.0, 0.1, self.model.nv))
        return self.observe()


class Reacher(_Body):
    """An arm of seven joints whose tip is to reach a target, which differs in every episode."""

    reward = staticmethod(rewards.reacher)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(str(_ASSETS / "pets_reacher.xml"), 2, 17, 50, **kwargs)

    def observe(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel[:-3]])

    def reset_model(self) -> np.ndarray:
        """Sets the target with noise of standard deviation 0.1, and the arm at rest."""
        qpos = self.init_qpos.copy()
        qpos[-3:] += self.np_random.normal(0.0, 0.1, 3)
        self.set_state(qpos, self.init_qvel)
        return self.observe()


class Pusher(_Body):
    """The same arm above a table, which is to push an object to the goal."""

    reward = staticmethod(rewards.pusher)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("pusher_v5.xml", 4, 20, 25, **kwargs)
        self.model.jnt_range[0, 1] = 2.0  # the paper's shoulder turns further than Gymnasium's

    def observe(self) -> np.ndarray:
        arm = self.data.qpos[:7], self.data.qvel[:7]
        return np.concatenate([*arm, self.get_body_com("tips_arm"), self.get_body_com("object")])

    def reset_model(self) -> np.ndarray:
        """Sets the object near (-0.25, 0.15) of the goal, with noise of standard deviation 0.025."""
        qpos = self.init_qpos.copy()
        qpos[-4:-2] = np.array([-0.25, 0.15]) + self.np_random.normal(0.0, 0.025, 2)
        qpos[-2:] = 0.0
        qvel = self.init_qvel + self.np_random.uniform(-0.005, 0.005, self.model.nv)
        qvel[-4:] = 0.0
        self.set_state(qpos, qvel)
        return self.observe()
