"""Gymnasium-Robotics' tasks with goals, by their own names: `FetchReach-v4`, `PointMaze_UMaze-v3`.

Its Fetch and Shadow Hand tasks, as of 1.4.2, do not run with MuJoCo 3.17, whose joint types are no integers any more.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lit_mbrl.utils.errors import OptionError

PREFIXES = ("Fetch", "HandReach", "HandManipulate", "PointMaze_", "AntMaze_")


def make(name: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """The task of that name.

    Raises:
        OptionError: if the installed Gymnasium-Robotics does not run with the installed MuJoCo.
        ImportError: if it is not installed.
    """
    import gymnasium_robotics
    import mujoco

    gym.register_envs(gymnasium_robotics)
    try:
        return gym.make(name, max_episode_steps, disable_env_checker=True, **kwargs)
    except AssertionError as error:
        pair = f"Gymnasium-Robotics {gymnasium_robotics.__version__} with MuJoCo {mujoco.__version__}"
        expected = f"a task that the installed packages can make, not one that fails an assertion of {pair}"
        raise OptionError("data.env.name", name, expected) from error
