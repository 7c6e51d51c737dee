"""Termination rules of tasks as functions of what an agent sees: rules for models that predict observations.

| task | terminated on the next observation o |
|---|---|
| `InvertedPendulum-v5` | not (all finite, abs(o[1]) <= 0.2) |
| `InvertedDoublePendulum-v5` | height of the tip, 0.6 (cos a + cos(a + b)), at most 1 |
| `Hopper-v5`, `mbpo/Hopper` | see `envs.tasks.mbpo` |
| `Walker2d-v5`, `mbpo/Walker2d` | see `envs.tasks.mbpo` |
| `Ant-v5`, `mbpo/AntTruncatedObs` | see `envs.tasks.mbpo`; of Ant-v5's observation its position and velocity count |
| `Humanoid-v5` | not 1 < o[0] < 2 |
| `mbpo/HumanoidTruncatedObs` | see `envs.tasks.mbpo` |
| `HalfCheetah-v5`, `Pendulum-v1`, `Pusher-v5`, `Reacher-v5`, `Swimmer-v5`, `mbpo/HalfCheetah` | never |
| `poplin/*`, `pets/*` | never |

The rules hold for numpy arrays and torch tensors. MuJoCo's warnings of an unstable simulation end no episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lit_mbrl.envs.tasks import mbpo, poplin

_INF = float("inf")
Rule = Callable[[Any, Any, Any], Any]

# Arguments of a constructor that leave observations and terminations as they are.
_HARMLESS = {
    "alive_bonus_on_termination",
    "camera_id",
    "camera_name",
    "contact_cost_range",
    "contact_cost_weight",
    "ctrl_cost_weight",
    "default_camera_config",
    "forward_reward_weight",
    "frame_skip",
    "g",
    "healthy_reward",
    "height",
    "render_mode",
    "reset_noise_scale",
    "reward_control_weight",
    "reward_dist_weight",
    "width",
}


def rule(name: str, kwargs: dict[str, Any] | None = None) -> Rule | None:
    """The termination rule of a task, or None where none is known.

    Args:
        name: as in `EnvConfig`.
        kwargs: of the environment's constructor; what may change its observation or its health makes the rule unknown.

    Returns:
        (observation [..., O], action [..., A], next observation [..., O]) -> bool [..., 1].
    """
    return None if set(kwargs or ()) - _HARMLESS else _RULES.get(name)


def never(observation: Any, action: Any, following: Any) -> Any:
    """All False."""
    return abs(following[..., :1]) < 0.0


def inverted_pendulum(observation: Any, action: Any, following: Any) -> Any:
    """Of the pole's angle."""
    upright = (abs(following) < _INF).all(-1) & (abs(following[..., 1]) <= 0.2)
    return ~upright[..., None]


def inverted_double_pendulum(observation: Any, action: Any, following: Any) -> Any:
    """Of the height of the tip: poles of 0.6, the observation holds sine and cosine of their angles."""
    sin_a, sin_b, cos_a, cos_b = (following[..., i] for i in range(1, 5))
    height = 0.6 * (cos_a + cos_a * cos_b - sin_a * sin_b)
    return ~(height > 1.0)[..., None]


def hopper(observation: Any, action: Any, following: Any) -> Any:
    """Of height, angle and the size of the state."""
    return mbpo.hopper_terminated(following)


def walker2d(observation: Any, action: Any, following: Any) -> Any:
    """Of height and angle."""
    return mbpo.walker2d_terminated(following)


def ant(observation: Any, action: Any, following: Any) -> Any:
    """Of height; the contact forces that may follow position and velocity (27 numbers) do not count."""
    return mbpo.ant_terminated(following[..., :27])


def humanoid(observation: Any, action: Any, following: Any) -> Any:
    """Of height."""
    return ~((following[..., 0] > 1.0) & (following[..., 0] < 2.0))[..., None]


def truncated_humanoid(observation: Any, action: Any, following: Any) -> Any:
    """Of height."""
    return mbpo.humanoid_terminated(following)


_NEVER = (
    *("HalfCheetah-v5", "Pendulum-v1", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "mbpo/HalfCheetah"),
    *("pets/CartPole", "pets/Reacher", "pets/Pusher", "pets/HalfCheetah"),
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys((*_NEVER, *(f"poplin/{task}" for task in poplin.TASKS)), never),
    "InvertedPendulum-v5": inverted_pendulum,
    "InvertedDoublePendulum-v5": inverted_double_pendulum,
    "Hopper-v5": hopper,
    "mbpo/Hopper": hopper,
    "Walker2d-v5": walker2d,
    "mbpo/Walker2d": walker2d,
    "Ant-v5": ant,
    "mbpo/AntTruncatedObs": ant,
    "Humanoid-v5": humanoid,
    "mbpo/HumanoidTruncatedObs": truncated_humanoid,
}
