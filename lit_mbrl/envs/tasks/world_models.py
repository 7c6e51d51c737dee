"""The tasks of World Models (Ha and Schmidhuber 2018, arXiv 1803.10122; details from its public code).

| task | steps | action | image |
|---|---|---|---|
| `world_models/CarRacing` | 1000 | steering, gas `(a + 1) / 2`, brake `max(a, 0)` | without the bar at its bottom |
| `world_models/TakeCover` | 525 of 4 tics each | stay, left, right | the screen |

The public code also inverts the colours of CarRacing's images, which the autoencoder does not notice, and chooses among
TakeCover's actions by thresholds of one number. TakeCover's reward is 1 for every tic alive, and 2100 tics are its end.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from lit_mbrl.envs.state import StatefulWrapper

TASKS = ("CarRacing", "TakeCover")
_ROAD = 84  # rows of CarRacing's 96


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the paper's limit.
        **kwargs: arguments of the environment's constructor.
    """
    if task == "CarRacing":
        env = gym.make("CarRacing-v3", max_episode_steps or 1000, disable_env_checker=True, **kwargs)
        return Road(env)
    from vizdoom import gymnasium_wrapper  # noqa: F401  registers its ids

    limit = max_episode_steps or 525
    return Screen(gym.make("VizdoomTakeCover-v1", limit, disable_env_checker=True, **({"frame_skip": 4} | kwargs)))


class Road(StatefulWrapper):
    """CarRacing's road, and actions in [-1, 1] with no brake in their lower half."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        _, width, channels = env.observation_space.shape or ()
        self.observation_space = Box(0, 255, (_ROAD, width, channels), np.uint8)
        one = np.ones(3, np.float32)
        self.action_space = Box(-one, one, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Image [84, 96, 3] uint8 and info."""
        image, info = self.env.reset(seed=seed, options=options)
        return image[:_ROAD], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict]:
        """Gymnasium's step."""
        steering, gas, brake = np.clip(action, -1.0, 1.0)
        chosen = np.array([steering, (gas + 1.0) / 2.0, max(brake, 0.0)], np.float32)
        image, reward, terminated, truncated, info = self.env.step(chosen)
        return image[:_ROAD], reward, terminated, truncated, info


class Screen(StatefulWrapper):
    """Doom's screen alone."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        spaces: Any = env.observation_space
        self.observation_space = spaces["screen"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Image [240, 320, 3] uint8 and info."""
        # The first reset starts the game, which leaves settings and a folder where it is started.
        with contextlib.chdir(tempfile.gettempdir()):
            observation, info = self.env.reset(seed=seed, options=options)
        return observation["screen"], info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict]:
        """Gymnasium's step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation["screen"], reward, terminated, truncated, info
