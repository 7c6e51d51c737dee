"""The tasks of MBPO (Janner et al. 2019, arXiv 1906.08253v3), and their termination rules as functions.

| task | body | O | A | terminated on the next observation o |
|---|---|---|---|---|
| `mbpo/Hopper` | Hopper-v5 | 11 | 3 | not (all finite, all abs(o[1:]) < 100, o[0] > 0.7, abs(o[1]) < 0.2) |
| `mbpo/Walker2d` | Walker2d-v5 with `walker2d.xml` | 17 | 6 | not (0.8 < o[0] < 2, abs(o[1]) < 1) |
| `mbpo/HalfCheetah` | HalfCheetah-v5 | 17 | 6 | never |
| `mbpo/AntTruncatedObs` | Ant-v5 without contact forces in o | 27 | 8 | not (all finite, 0.2 <= o[0] <= 1) |
| `mbpo/HumanoidTruncatedObs` | Humanoid-v5, o = [qpos[2:], qvel] | 45 | 17 | o[0] < 1 or o[0] > 2 |

    r_t = w v_t - c |u_t|^2 - contact_t + alive       (v the forward velocity over the step, u the torques)

| | w | c | contact | alive |
|---|---|---|---|---|
| Hopper, Walker2d | 1 | 1e-3 | 0 | 1 |
| HalfCheetah | 1 | 0.1 | 0 | 0 |
| AntTruncatedObs | 1 | 0.5 | 5e-4 abs(clip(cfrc_ext, -1, 1))^2 | 1 |
| HumanoidTruncatedObs | 1.25 | 0.1 | min(5e-7 abs(cfrc_ext)^2, 10) | 5 |

1000 steps at most. MBPO ran Gym's v2 tasks, which paid `alive` on the terminating step too, while Gymnasium's v5 pays
it only while healthy; `alive_bonus_on_termination=True`, the default, adds it there. Contact costs are active as in
MBPO's code. Torques are the rescaled action: 0.4 a for Humanoid, a elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.state import StatefulWrapper

_INF = float("inf")
# Gymnasium id, alive bonus, arguments that define the task.
_TASKS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "Hopper": ("Hopper-v5", 1.0, {}),
    "Walker2d": ("Walker2d-v5", 1.0, {"xml_file": "walker2d.xml"}),
    "HalfCheetah": ("HalfCheetah-v5", 0.0, {}),
    "AntTruncatedObs": ("Ant-v5", 1.0, {"include_cfrc_ext_in_observation": False}),
    "HumanoidTruncatedObs": (
        "Humanoid-v5",
        5.0,
        {
            "include_cinert_in_observation": False,
            "include_cvel_in_observation": False,
            "include_qfrc_actuator_in_observation": False,
            "include_cfrc_ext_in_observation": False,
        },
    ),
}
TASKS = tuple(_TASKS)


def make(
    task: str, max_episode_steps: int | None = None, alive_bonus_on_termination: bool = True, **kwargs: Any
) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the limit of 1000 steps.
        alive_bonus_on_termination: pay the alive bonus on the terminating step too, as Gym's v2 did; v5 does not.
        **kwargs: arguments of the body's constructor.

    Raises:
        TypeError: if an argument is unknown, or is one that defines the task.
    """
    body, bonus, fixed = _TASKS[task]
    env = gym.make(body, max_episode_steps, disable_env_checker=True, **fixed, **kwargs)
    return AliveBonus(env, bonus) if alive_bonus_on_termination and bonus else env


class AliveBonus(StatefulWrapper):
    """Adds `bonus` to the reward of a terminating step."""

    def __init__(self, env: gym.Env, bonus: float) -> None:
        super().__init__(env)
        self._bonus = bonus

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + (self._bonus if terminated else 0.0), terminated, truncated, info


def terminated(name: str) -> Callable[[Any], Any]:
    """The termination rule of a task (`mbpo/Hopper` or `Hopper`): next observations [..., O] -> bool [..., 1].

    The rules use operators that numpy arrays and torch tensors share, and work for both.

    Raises:
        KeyError: if there is no such task.
    """
    return _TERMINATED[name.removeprefix("mbpo/")]


def hopper_terminated(o: Any) -> Any:
    """Next observations [..., 11] -> bool [..., 1]."""
    alive = (abs(o) < _INF).all(-1) & (abs(o[..., 1:]) < 100.0).all(-1) & (o[..., 0] > 0.7) & (abs(o[..., 1]) < 0.2)
    return ~alive[..., None]


def walker2d_terminated(o: Any) -> Any:
    """Next observations [..., 17] -> bool [..., 1]."""
    return ~((o[..., 0] > 0.8) & (o[..., 0] < 2.0) & (abs(o[..., 1]) < 1.0))[..., None]


def half_cheetah_terminated(o: Any) -> Any:
    """Next observations [..., 17] -> bool [..., 1], all False."""
    return abs(o[..., :1]) < 0.0


def ant_terminated(o: Any) -> Any:
    """Next observations [..., 27] -> bool [..., 1]."""
    return ~((abs(o) < _INF).all(-1) & (o[..., 0] >= 0.2) & (o[..., 0] <= 1.0))[..., None]


def humanoid_terminated(o: Any) -> Any:
    """Next observations [..., 45] -> bool [..., 1]."""
    return ((o[..., 0] < 1.0) | (o[..., 0] > 2.0))[..., None]


_TERMINATED = {
    "Hopper": hopper_terminated,
    "Walker2d": walker2d_terminated,
    "HalfCheetah": half_cheetah_terminated,
    "AntTruncatedObs": ant_terminated,
    "HumanoidTruncatedObs": humanoid_terminated,
}
