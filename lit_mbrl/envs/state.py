"""Exact resume: the whole state of an environment as plain values and back, so that it continues bit for bit.

| environment | what is saved |
|---|---|
| MuJoCo (Gymnasium, `poplin/`, `mbpo/`) | MuJoCo's integration state and the derived arrays of `MjData` |
| DeepMind Control | the same, the model arrays that the task edits, the task's fields and generator, step count |
| classic control, toy text | the fields of the environment |
| PyBullet, but for Thrower and Flagrun | Bullet's own snapshot, the fields of the environment and of its robot |
| a custom environment | whatever its own `extra_state()` returns |

and for all of them the random generators, the time limit's count and the fields of our wrappers. States hold dict,
list, str, int, float, bool, None and numpy arrays only: nothing that would need code to be unpickled.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.envs.toy_text import BlackjackEnv, CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RescaleAction, TimeLimit

from lit_mbrl.utils.errors import require

# Their fields are all that they are.
_PLAIN = (
    *(AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, MountainCarEnv, PendulumEnv),
    *(BlackjackEnv, CliffWalkingEnv, FrozenLakeEnv, TaxiEnv),
)
# Arrays of MjData that grow and shrink with the contacts, or that only index into those; `mj_forward` rebuilds them.
_MUJOCO_REBUILT = ("efc_", "iefc_", "efm_", "island_", "map_", "bvh_", "plugin")
# The PyBullet environments that continue exactly; Thrower and HumanoidFlagrunHarder keep state elsewhere and do not.
_BULLET_EXACT = {
    f"{body}BulletEnv"
    for body in (
        *("InvertedPendulum", "InvertedDoublePendulum", "InvertedPendulumSwingup", "Reacher", "Pusher"),
        *("Hopper", "Walker2D", "HalfCheetah", "Ant", "Humanoid"),
    )
}
# Fields of the process and of how the environment was made: handles of the running Bullet client, rendering.
_NOT_STATE = {"physicsClientId", "ownsPhysicsClient", "stateId", "render_mode"}


class StatefulWrapper(gym.Wrapper):
    """A wrapper that exact resume may cross; `extra_state` returns all it remembers, by default nothing."""

    def extra_state(self) -> dict[str, Any]:
        """Returns what the wrapper remembers between two steps, as plain values and numpy arrays."""
        return {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""


def get_state(env: gym.Env) -> dict[str, Any] | None:
    """The exact state of `env`, which has been reset at least once.

    Returns:
        A nested dict of plain values and numpy arrays; None if this environment cannot be restored exactly.
    """
    layers: list[dict[str, Any]] = []
    layer = env
    while isinstance(layer, gym.Wrapper):
        state = _wrapper_state(layer)
        if state is None:
            return None
        layers.append(state)
        layer = layer.env
    base = _base_state(layer)
    if base is None:
        return None
    return {
        "classes": _classes(env),
        "wrappers": layers,
        "base": base,
        "np_random": generator_state(layer.np_random),
        "action_space": None if env.action_space._np_random is None else generator_state(env.action_space.np_random),
    }


def set_state(env: gym.Env, state: dict[str, Any]) -> None:
    """Puts `env`, made with the same arguments, into a state that `get_state` returned; its next step continues there.

    Raises:
        OptionError: if the state is that of another kind of environment.
    """
    saved, ours = (" of ".join(classes) for classes in (state["classes"], _classes(env)))
    require(saved == ours, "data.env", ours, f"{saved}, as in the checkpoint")
    env.reset()  # creates what an environment only creates in its first reset: the Bullet client, the task's fields
    layer = env
    for wrapper_state in state["wrappers"]:
        _set_wrapper_state(layer, wrapper_state)
        layer = layer.env
    _set_base_state(layer, state["base"])
    set_generator_state(layer.np_random, state["np_random"])
    if state["action_space"] is not None:
        set_generator_state(env.action_space.np_random, state["action_space"])


def generator_state(generator: np.random.Generator) -> str:
    """The state of a numpy generator as JSON: its integers have 128 bits, which no array holds."""
    return json.dumps(generator.bit_generator.state, default=np.ndarray.tolist)


def set_generator_state(generator: np.random.Generator, state: str) -> None:
    """Takes back what `generator_state` returned."""
    generator.bit_generator.state = json.loads(state)


def mujoco_state(model: Any, data: Any) -> dict[str, Any]:
    """State of a MuJoCo simulation (`mujoco.MjModel`, `mujoco.MjData`).

    The integration state alone fixes the trajectory, but not the first reward after a restore: a running simulator's
    derived arrays (`xpos`, `cfrc_ext`, ...) belong to an earlier sub-step, and rewards of Ant and Humanoid read them.
    So all of those with a fixed size are kept too, some 30 kB for Humanoid.
    """
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(model, kind), np.float64)
    mujoco.mj_getState(model, data, integration, kind)
    return {
        "integration": integration,
        "derived": {name: value.copy() for name, value in _derived_arrays(data).items()},
    }


def set_mujoco_state(model: Any, data: Any, state: dict[str, Any]) -> None:
    """Takes back what `mujoco_state` returned, for an equal model."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, state["integration"], kind)
    mujoco.mj_forward(model, data)  # contacts and constraints, whose sizes vary; it also moves the warm start,
    mujoco.mj_setState(model, data, state["integration"], kind)  # which is put back
    for name, value in _derived_arrays(data).items():
        value[...] = state["derived"][name]


def fields(thing: object) -> dict[str, Any]:
    """The attributes of an object that are plain values or arrays, without the random generator's."""
    names = (name for name in vars(thing) if name not in _NOT_STATE and not name.startswith("_np_random"))
    encoded = {name: _encode(vars(thing)[name]) for name in names}
    return {name: value for name, value in encoded.items() if value is not _NOT_PLAIN}


def set_fields(thing: object, state: dict[str, Any]) -> None:
    """Takes back what `fields` returned."""
    for name, value in state.items():
        setattr(thing, name, _decode(value))


def _classes(env: gym.Env) -> list[str]:
    classes = [type(env).__name__]
    while isinstance(env, gym.Wrapper):
        env = env.env
        classes.append(type(env).__name__)
    return classes


def _wrapper_state(wrapper: gym.Wrapper) -> dict[str, Any] | None:
    if isinstance(wrapper, StatefulWrapper):
        return wrapper.extra_state()
    if isinstance(wrapper, TimeLimit):
        return {"elapsed_steps": wrapper._elapsed_steps}
    if isinstance(wrapper, OrderEnforcing):
        return {"has_reset": wrapper._has_reset}
    return {} if isinstance(wrapper, RescaleAction | PassiveEnvChecker) else None


def _set_wrapper_state(wrapper: gym.Wrapper, state: dict[str, Any]) -> None:
    if isinstance(wrapper, StatefulWrapper):
        wrapper.set_extra_state(state)
    elif isinstance(wrapper, TimeLimit):
        wrapper._elapsed_steps = state["elapsed_steps"]
    elif isinstance(wrapper, OrderEnforcing):
        wrapper._has_reset = state["has_reset"]


def _base_state(env: gym.Env) -> dict[str, Any] | None:
    if hasattr(env, "extra_state"):
        return env.extra_state()
    if isinstance(env, _PLAIN):
        return fields(env)
    if _is_mujoco(env):
        return {"fields": fields(env), "mujoco": mujoco_state(env.model, env.data)}
    if _is_bullet(env):
        return _bullet_state(env)
    return None


def _set_base_state(env: gym.Env, state: dict[str, Any]) -> None:
    if hasattr(env, "set_extra_state"):
        env.set_extra_state(state)
    elif isinstance(env, _PLAIN):
        set_fields(env, state)
    elif _is_mujoco(env):
        set_fields(env, state["fields"])
        set_mujoco_state(env.model, env.data, state["mujoco"])
    else:
        _set_bullet_state(env, state)


def _is_mujoco(env: gym.Env) -> bool:
    module = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")  # if it was never imported, env is none of its kind
    return module is not None and isinstance(env, module.MujocoEnv)


def _is_bullet(env: gym.Env) -> bool:
    return type(env).__module__.startswith("pybullet_envs_gymnasium.") and type(env).__name__ in _BULLET_EXACT


def _derived_arrays(data: Any) -> dict[str, np.ndarray]:
    names = (name for name in dir(data) if not name.startswith(("_", *_MUJOCO_REBUILT)))
    arrays = ((name, getattr(data, name)) for name in names)
    return {
        name: value
        for name, value in arrays
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size and value.flags.writeable
    }


def _bullet_state(env: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.bullet"
        env._p.saveBullet(str(path))
        world = np.frombuffer(path.read_bytes(), np.uint8)
    return {"world": world, "env": fields(env), "robot": fields(env.robot)}


def _set_bullet_state(env: Any, state: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.bullet"
        path.write_bytes(state["world"].tobytes())
        env._p.restoreState(fileName=str(path))
    set_fields(env, state["env"])
    set_fields(env.robot, state["robot"])


_NOT_PLAIN = object()


def _encode(value: object) -> Any:
    """Plain values as they are, numpy scalars as 0-d arrays, tuples as `{"tuple": [...]}`; else `_NOT_PLAIN`."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "bifu":
        return np.array(value)
    if isinstance(value, list | tuple):
        items = [_encode(item) for item in value]
        if any(item is _NOT_PLAIN for item in items):
            return _NOT_PLAIN
        return {"tuple": items} if isinstance(value, tuple) else items
    return _NOT_PLAIN


def _decode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value[()] if value.ndim == 0 else value.copy()
    if isinstance(value, dict):
        return tuple(_decode(item) for item in value["tuple"])
    return [_decode(item) for item in value] if isinstance(value, list) else value
