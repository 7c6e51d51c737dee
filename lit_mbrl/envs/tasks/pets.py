"""The tasks of PETS (Chua et al. 2018, arXiv 1805.12114v2; what the paper leaves out from its public code).

None of them terminates. `a` is the action in the simulator's units, `o` and `o'` the observation before and after it.

| task | steps | O | A | observation | reward |
|---|---|---|---|---|---|
| `pets/CartPole` | 200 | 4 | 1 | qpos, qvel | `exp(-(tip(o') - [0, 0.6])^2 / 0.6^2) - 0.01 a^2` |
| `pets/Reacher` | 150 | 17 | 7 | qpos (and the target's), qvel | `-(tip(o') - target)^2 - 0.01 a^2` |
| `pets/Pusher` | 150 | 20 | 7 | qpos, qvel, tip, object | `-0.5 near(o) - 1.25 far(o) - 0.1 a^2` |
| `pets/HalfCheetah` | 1000 | 18 | 6 | see `poplin.PETSCheetah` | `o'[0] - 0.1 a^2` |

Squares are of vectors; `near` is the distance of tip and object, `far` that of object and goal, both as sums over the
coordinates. The cart-pole hangs down at first and turns freely. The pusher's body is Gymnasium's `pusher_v5.xml`, whose
puck is heavier than the paper's (too light for MuJoCo 3), with the shoulder's range of the paper. The simulators are in
`pets_mujoco.py`, which is imported when one is made.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lit_mbrl.envs.tasks import poplin

STEPS = {"CartPole": 200, "Reacher": 150, "Pusher": 150, "HalfCheetah": 1000}
TASKS = tuple(STEPS)


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the paper's limit.
        **kwargs: arguments of Gymnasium's `MujocoEnv`, such as `render_mode`.

    Raises:
        TypeError: if an argument is unknown.
    """
    limit = max_episode_steps or STEPS[task]
    if task == "HalfCheetah":
        return poplin.make("PETSCheetah", limit, **kwargs)
    from lit_mbrl.envs.tasks import pets_mujoco

    return gym.wrappers.TimeLimit(getattr(pets_mujoco, task)(**kwargs), limit)
