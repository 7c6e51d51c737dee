"""The tasks of temporal difference models (Pong et al. 2018, arXiv 1802.09081), with goals in Gymnasium's convention.

What the paper leaves out is its public code's (vitchyr/rlkit 0.1.2). `a'` and `g` are achieved and desired goal after
the step; the observation does not have the goal in it.

| task | steps | O | A | achieved goal | desired goal | reward |
|---|---|---|---|---|---|---|
| `tdm/HalfCheetahVelocity` | 100 | 17 | 6 | x velocity, o[8] | uniform in [-6, 6] | `-abs(a' - g)` |
| `tdm/AntPosition` | 50 | 30 | 8 | torso's x, y, o[27:29] | uniform in [-6, 6]^2 | `-norm(a' - g)` |
| `tdm/Reacher` | 100 | 17 | 7 | fingertip, o[14:17] | of a random pose | `-norm(a' - g)` |
| `tdm/Pusher` | 100 | 20 | 7 | fingertip, puck, o[14:20] | the target, twice | `rewards.pusher_goal` |

The bodies are Gymnasium's HalfCheetah-v5, Ant-v5 (motors of gear 30, a fifth of Gymnasium's; an episode terminates if
the torso's height leaves [0.2, 1]) and, for the last two, the arm of seven joints of Pusher-v5. Observations are the
body's positions and velocities; the ant's `[qpos[2:], qvel, torso]`, the arm's `[qpos[:7], qvel[:7], fingertip]`, the
pusher's puck behind it. The simulators are in `tdm_mujoco.py`, which is imported when one is made.

Readings and departures:

- The reward is of the state after the step; the code's reacher pays the distance before it.
- The reacher's goals are fingertips that are above the table; `kwargs: {goal: state}` asks for the whole state of the
  random pose at rest, as the code does, and pays the fingertip's distance all the same. The puck is out of the way.
- The code has no pusher. The reward is Pusher-v5's without its control cost, half the distance of fingertip and puck
  and that of puck and target; the target is always in the same place. Pusher-v5's
  puck is heavier than that of Gym's older Pusher.
- The code resets the cheetah and draws goals from NumPy's global generator; here the environment's own draws them.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

STEPS = {"HalfCheetahVelocity": 100, "AntPosition": 50, "Reacher": 100, "Pusher": 100}
TASKS = tuple(STEPS)


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: replaces the code's limit.
        **kwargs: `max_speed` of the cheetah's goals, `max_distance` of the ant's, `goal` of the reacher, and arguments
            of the body's constructor, as `render_mode`.

    Raises:
        TypeError: if an argument is unknown.
    """
    from lit_mbrl.envs.tasks import tdm_mujoco

    return gym.wrappers.TimeLimit(getattr(tdm_mujoco, task)(**kwargs), max_episode_steps or STEPS[task])
