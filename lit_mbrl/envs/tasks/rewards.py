"""Rewards of tasks as functions of what an agent sees, for planners, and the features of observations that models read.

| task | reward of (observation o, action a in the task's own units, next observation o') |
|---|---|
| `pets/*` | see `envs.tasks.pets` |
| `poplin/*` | see `envs.tasks.poplin` |
| `Pendulum-v1` | `-(angle^2 + 0.1 velocity^2 + 0.001 a^2)` of o |
| `InvertedPendulum-v5` | 1 while it has not terminated |
| `Reacher-v5` | `-abs(o'[8:10]) - abs(a)^2` |
| `Pusher-v5` | `-0.5 abs(tip - object) - abs(object - goal) - 0.1 abs(a)^2` of o' |
| `tdm/*`, `goals/PointMass` | of achieved and desired goal alone (`goal_rule`): see `envs.tasks.tdm` |

The functions hold for numpy arrays and torch tensors, and take actions in [-1, 1] as agents do. This file imports no
torch: the environments in worker processes call some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lit_mbrl.envs.spec import Features
from lit_mbrl.envs.tasks import poplin, terminations

Reward = Callable[[Any, Any, Any], Any]

# Arguments of a constructor that leave rewards and observations as they are.
_HARMLESS = {
    "camera_id",
    "camera_name",
    "default_camera_config",
    "height",
    "max_geom",
    "render_mode",
    "reset_noise_scale",
    "visual_options",
    "width",
}


def rule(name: str, kwargs: dict[str, Any] | None = None) -> Reward | None:
    """The reward of a task, or None where none is known.

    Args:
        name: as in `EnvConfig`.
        kwargs: of the environment's constructor; what may change its observation or reward makes the reward unknown.

    Returns:
        (observation [..., O], action [..., A], next observation [..., O]) -> reward [..., 1].
    """
    return None if set(kwargs or ()) - _HARMLESS else _RULES.get(name)


def goal_rule(name: str) -> Callable[[Any, Any], Any] | None:
    """The reward of a task with goals, or None where none is known; no argument of these tasks changes it.

    Returns:
        (achieved goal [..., G], desired goal [..., G]) -> reward [..., 1].
    """
    return _GOAL_RULES.get(name)


def features(name: str, kwargs: dict[str, Any] | None = None) -> Features:
    """Selects a model's inputs and prediction targets for a task: the paper's choice, or the observation as it is."""
    return Features() if set(kwargs or ()) - _HARMLESS else _FEATURES.get(name, Features())


# ---------------------------------------------------------------------- PETS
def cartpole(observation: Any, action: Any, following: Any) -> Any:
    """Nearness of the tip to where it is when the pole stands in the middle."""
    lib, x, angle = _library(following), following[..., :1], following[..., 1:2]
    across, up = x - 0.6 * lib.sin(angle), -0.6 * lib.cos(angle) - 0.6
    return lib.exp(-(across**2 + up**2) / 0.6**2) - 0.01 * 9.0 * _square(action)


def reacher(observation: Any, action: Any, following: Any) -> Any:
    """Squared distance of the tip to the target, which is a part of the observation."""
    tip = arm_tip(following[..., :7])
    distance = sum((tip[i] - following[..., 7 + i : 8 + i]) ** 2 for i in range(3))
    return -distance - 0.01 * 400.0 * _square(action)


def pusher(observation: Any, action: Any, following: Any) -> Any:
    """Distances, as sums over coordinates, before the step."""
    tip, thing = observation[..., 14:17], observation[..., 17:20]
    goal = (0.45, -0.05, -0.323)
    near = abs(tip - thing).sum(-1)[..., None]
    far = sum(abs(thing[..., i : i + 1] - goal[i]) for i in range(3))
    return -0.5 * near - 1.25 * far - 0.1 * 4.0 * _square(action)


def arm_tip(joints: Any) -> tuple[Any, Any, Any]:
    """Position of the tip of PETS' reacher, x, y and z `[..., 1]`, from its joints `[..., 7]`.

    From the hand back to the shoulder: each link adds its length along x, each joint turns all that hangs on it.
    """
    pan, lift, roll, elbow, forearm, wrist = (joints[..., i : i + 1] for i in range(6))
    tip = _turn((0.16828 + 0.0 * pan, 0.0 * pan, 0.0 * pan), wrist, "y")
    x, y, z = _turn(tip, forearm, "x")
    x, y, z = _turn(_turn((x + 0.321, y, z), elbow, "y"), roll, "x")
    x, y, z = _turn((x + 0.4, y, z), lift, "y")
    x, y, z = _turn((x + 0.1, y, z), pan, "z")
    return x, y - 0.188, z


def _turn(point: tuple[Any, Any, Any], angle: Any, axis: str) -> tuple[Any, Any, Any]:
    lib = _library(angle)
    (x, y, z), cos, sin = point, lib.cos(angle), lib.sin(angle)
    if axis == "x":
        return x, cos * y - sin * z, sin * y + cos * z
    if axis == "y":
        return cos * x + sin * z, y, cos * z - sin * x
    return cos * x - sin * y, sin * x + cos * y, z


def velocity_of_next(observation: Any, action: Any, following: Any) -> Any:
    """The cheetah of PETS: velocity over the step, and a control cost."""
    return following[..., :1] - 0.1 * _square(action)


# ---------------------------------------------------------------------- POPLIN
def poplin_reward(task: str, observation: Any, action: Any, following: Any) -> Any:
    """Of the state before the step."""
    row, velocity = poplin.ROWS[task], poplin.VELOCITY[task]
    height = observation[..., :1]
    return observation[..., velocity : velocity + 1] - row.h * (height - row.z) ** 2 - 0.1 * _square(action) + row.b


def swimmer(observation: Any, action: Any, following: Any) -> Any:
    """Velocity of the tip before the step."""
    return observation[..., 8:9] - 1e-4 * _square(action)


# ---------------------------------------------------------------------- Gymnasium
def pendulum(observation: Any, action: Any, following: Any) -> Any:
    """Of angle and velocity before the step."""
    cos, sin, velocity = (observation[..., i : i + 1] for i in range(3))
    angle = _library(observation).arctan2(sin, cos)
    return -(angle**2 + 0.1 * velocity**2 + 0.001 * 4.0 * _square(action))


def inverted_pendulum(observation: Any, action: Any, following: Any) -> Any:
    """1 while the pole stands."""
    return 1.0 * ~terminations.inverted_pendulum(observation, action, following)


def gymnasium_reacher(observation: Any, action: Any, following: Any) -> Any:
    """Distance of the fingertip."""
    return -(_square(following[..., 8:10]) ** 0.5) - _square(action)


def gymnasium_pusher(observation: Any, action: Any, following: Any) -> Any:
    """Distances after the step."""
    tip, thing, goal = following[..., 14:17], following[..., 17:20], following[..., 20:23]
    return -0.5 * _square(tip - thing) ** 0.5 - _square(thing - goal) ** 0.5 - 0.1 * 4.0 * _square(action)


# ---------------------------------------------------------------------- goals
def goal_distance(achieved: Any, desired: Any) -> Any:
    """Minus the Euclidean distance of goals `[..., G]`, `[..., 1]`."""
    return -(_square(achieved - desired) ** 0.5)


def fingertip_goal(achieved: Any, desired: Any) -> Any:
    """Minus the distance of the fingertips, which are the last three numbers of goals `[..., 3]` or `[..., 17]`."""
    return goal_distance(achieved[..., -3:], desired[..., -3:])


def pusher_goal(achieved: Any, desired: Any) -> Any:
    """Distances of fingertip and puck, weighed by a half, and of puck and target, of goals `[..., 6]`."""
    tip, puck = achieved[..., :3], achieved[..., 3:]
    return 0.5 * goal_distance(tip, puck) + goal_distance(puck, desired[..., 3:])


def _square(x: Any) -> Any:
    return (x * x).sum(-1)[..., None]


def _library(x: Any) -> Any:
    """NumPy for its arrays, torch for tensors: whoever has one has imported it."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


_RULES: dict[str, Reward] = {
    "pets/CartPole": cartpole,
    "pets/Reacher": reacher,
    "pets/Pusher": pusher,
    "pets/HalfCheetah": velocity_of_next,
    **{f"poplin/{task}": partial(poplin_reward, task) for task in poplin.ROWS},
    "poplin/Swimmer": swimmer,
    "poplin/PETSCheetah": velocity_of_next,
    "Pendulum-v1": pendulum,
    "InvertedPendulum-v5": inverted_pendulum,
    "Reacher-v5": gymnasium_reacher,
    "Pusher-v5": gymnasium_pusher,
}
_GOAL_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "goals/PointMass": goal_distance,
    "tdm/HalfCheetahVelocity": goal_distance,
    "tdm/AntPosition": goal_distance,
    "tdm/Reacher": fingertip_goal,
    "tdm/Pusher": pusher_goal,
}
_CHEETAH = Features(angles=(2,), absolute=(0,), unused=(0,))
_FEATURES = {
    "pets/CartPole": Features(angles=(1,)),
    "pets/HalfCheetah": _CHEETAH,
    "poplin/PETSCheetah": _CHEETAH,
}
