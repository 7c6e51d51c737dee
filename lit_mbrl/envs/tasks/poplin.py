"""The tasks of POPLIN (Wang & Ba 2019, arXiv 1906.08649v1), as the SVG paper (arXiv 2008.12775, Table 2) runs them too.

An episode is 1000 steps and never terminates. The observation is `[qpos[k:], qvel]`, velocities not clipped, and the
reward is computed from the state s_t in which the action a_t is taken,

    r_t = qvel_t[0] - h (qpos_t[k] - z)^2 - c |a_t|^2 + b       (x velocity, height, control cost, bonus)

| task | body | O | A | k | h, z | c | b |
|---|---|---|---|---|---|---|---|
| `poplin/HalfCheetah` | HalfCheetah-v5 | 17 | 6 | 1 | 0, - | 0.1 | 0 |
| `poplin/Hopper` | Hopper-v5 | 11 | 3 | 1 | 3, 1.3 | 0.1 | 1 |
| `poplin/Walker2d` | Walker2d-v5 with `walker2d.xml` | 17 | 6 | 1 | 3, 1.3 | 0.1 | 1 |
| `poplin/Ant` | Ant-v5 | 27 | 8 | 2 | 3, 0.57 | 0.1 | 1 |
| `poplin/Swimmer` | Swimmer-v5 | 9 | 2 | 2 | see `Swimmer` | 1e-4 | 0 |
| `poplin/PETSCheetah` | HalfCheetah-v5 | 18 | 6 | 1 | see `PETSCheetah` | 0.1 | 0 |

The bodies are Gymnasium's; Walker2d asks for `walker2d.xml` because Gymnasium's v5 default changed the friction of the
right foot. Returns are not comparable with those of Gymnasium's tasks of the same names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.state import StatefulWrapper


@dataclass(frozen=True)
class _Task:
    """A row of the table: the Gymnasium id and arguments of the body, and k, h, z, b of the reward."""

    body: str
    k: int
    h: float = 0.0
    z: float = 0.0
    b: float = 0.0
    kwargs: dict[str, Any] = field(default_factory=dict)


ROWS = {
    "HalfCheetah": _Task("HalfCheetah-v5", k=1),
    "Hopper": _Task("Hopper-v5", k=1, h=3.0, z=1.3, b=1.0, kwargs={"terminate_when_unhealthy": False}),
    "Walker2d": _Task(
        "Walker2d-v5",
        k=1,
        h=3.0,
        z=1.3,
        b=1.0,
        kwargs={"terminate_when_unhealthy": False, "xml_file": "walker2d.xml"},
    ),
    "Ant": _Task(
        "Ant-v5",
        k=2,
        h=3.0,
        z=0.57,
        b=1.0,
        kwargs={"terminate_when_unhealthy": False, "include_cfrc_ext_in_observation": False},
    ),
}
# Where the x velocity is in the observation.
VELOCITY = {"HalfCheetah": 8, "Hopper": 5, "Walker2d": 8, "Ant": 13}
TASKS = (*ROWS, "Swimmer", "PETSCheetah")


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the limit of 1000 steps.
        **kwargs: arguments of the body's constructor, or of `PETSCheetah`.

    Raises:
        TypeError: if an argument is unknown, or is one that defines the task.
    """
    if task == "Swimmer":
        return Swimmer(gym.make("Swimmer-v5", max_episode_steps, disable_env_checker=True, **kwargs))
    if task == "PETSCheetah":
        sin_cos_pitch = kwargs.pop("sin_cos_pitch", False)
        body = gym.make("HalfCheetah-v5", max_episode_steps, disable_env_checker=True, **kwargs)
        return PETSCheetah(body, sin_cos_pitch)
    row = ROWS[task]
    return Poplin(gym.make(row.body, max_episode_steps, disable_env_checker=True, **row.kwargs, **kwargs), row)


class Poplin(StatefulWrapper):
    """HalfCheetah, Hopper, Walker2d and Ant: the formula of the module with the constants of one row of its table."""

    def __init__(self, env: gym.Env, task: _Task) -> None:
        super().__init__(env)
        self._task = task
        self._data = env.unwrapped.data
        self.observation_space = _unbounded(env.unwrapped.model.nq + env.unwrapped.model.nv - task.k)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [O] float64 and info."""
        _, info = self.env.reset(seed=seed, options=options)
        return self._observation(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step; `terminated` is always False."""
        task, qpos, qvel = self._task, self._data.qpos, self._data.qvel
        # From the state before the step, so computed before the simulator moves on.
        reward = qvel[0] - task.h * (qpos[task.k] - task.z) ** 2 - 0.1 * _square(action) + task.b
        _, _, _, truncated, info = self.env.step(action)
        return self._observation(), float(reward), False, truncated, info

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._data.qpos[self._task.k :], self._data.qvel))


class Swimmer(StatefulWrapper):
    """The authors' `gym_fswimmer`: Swimmer's 8 numbers and the x velocity of its tip over the last step, 9 in all.

    With the tip at x_t = qpos[0] + 1.5 cos(qpos[2]), which equals the site in the authors' modified XML,

        o_t[8] = (x_t - x_{t-1}) / dt,    r_t = o_t[8] - 1e-4 |a_t|^2.

    o_0[8] = 0; the authors' code leaves the last value of the previous episode there.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._data, self._dt = env.unwrapped.data, env.unwrapped.dt
        self._tip_velocity = 0.0
        self.observation_space = _unbounded(9)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [9] float64 and info."""
        _, info = self.env.reset(seed=seed, options=options)
        self._tip_velocity = 0.0
        return self._observation(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step; `terminated` is always False."""
        reward = self._tip_velocity - 1e-4 * _square(action)
        tip = self._tip()
        _, _, _, truncated, info = self.env.step(action)
        self._tip_velocity = (self._tip() - tip) / self._dt
        return self._observation(), float(reward), False, truncated, info

    def extra_state(self) -> dict[str, Any]:
        """The tip's velocity, which the next reward reads."""
        return {"tip_velocity": self._tip_velocity}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._tip_velocity = state["tip_velocity"]

    def _tip(self) -> float:
        return float(self._data.qpos[0]) + 1.5 * math.cos(self._data.qpos[2])

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._data.qpos[2:], self._data.qvel, (self._tip_velocity,)))


class PETSCheetah(StatefulWrapper):
    """The cheetah of PETS (Chua et al. 2018, arXiv 1805.12114): velocity first, and rewarded by the next observation,

        o_t = [(x_t - x_{t-1}) / dt, qpos_t[1:], qvel_t],    r_t = o_{t+1}[0] - 0.1 |a_t|^2,

    18 numbers, o_0[0] = 0. Every qpos and qvel starts with noise N(0, 1e-3) instead of Gymnasium's wider one.

    Args:
        env: HalfCheetah-v5.
        sin_cos_pitch: replace the pitch `qpos[2]` by its sine and cosine (19 numbers), as the SVG paper's code does.
    """

    def __init__(self, env: gym.Env, sin_cos_pitch: bool = False) -> None:
        super().__init__(env)
        self._data, self._dt = env.unwrapped.data, env.unwrapped.dt
        self._sin_cos_pitch = sin_cos_pitch
        self.observation_space = _unbounded(19 if sin_cos_pitch else 18)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [18] float64 and info."""
        _, info = self.env.reset(seed=seed, options=options)
        u = self.env.unwrapped
        qpos = u.init_qpos + u.np_random.normal(0.0, 1e-3, u.model.nq)
        u.set_state(qpos, u.init_qvel + u.np_random.normal(0.0, 1e-3, u.model.nv))
        return self._observation(0.0), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step; `terminated` is always False."""
        x = float(self._data.qpos[0])
        _, _, _, truncated, info = self.env.step(action)
        velocity = (float(self._data.qpos[0]) - x) / self._dt
        return self._observation(velocity), velocity - 0.1 * _square(action), False, truncated, info

    def _observation(self, velocity: float) -> np.ndarray:
        qpos, qvel = self._data.qpos, self._data.qvel
        if self._sin_cos_pitch:
            return np.concatenate(((velocity, qpos[1], math.sin(qpos[2]), math.cos(qpos[2])), qpos[3:], qvel))
        return np.concatenate(((velocity,), qpos[1:], qvel))


def _square(action: np.ndarray) -> float:
    return float(np.square(action, dtype=np.float64).sum())


def _unbounded(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
