"""DeepMind Control tasks (`dmc/walker-walk`) as Gymnasium environments with one flat observation."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from lit_mbrl.envs.state import fields, mujoco_state, set_fields, set_mujoco_state
from lit_mbrl.utils.errors import OptionError, did_you_mean

# The bound that stands for none (mujoco.mjMAXVAL).
_UNLIMITED = 1e10
# Parts of a MuJoCo model that no task edits and that may take megabytes.
_MODEL_ASSETS = ("mesh_", "tex_", "skin_", "bvh_", "paths", "names")


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """The task `<domain>-<task>`.

    Args:
        task: such as `walker-walk` or `ball_in_cup-catch`.
        max_episode_steps: replaces the task's own limit, 1000 control steps for most.
        **kwargs: arguments of the task's function in `dm_control.suite` (`time_limit`, `environment_kwargs`, ...).

    Raises:
        OptionError: if there is no such task.
    """
    from dm_control import suite

    domain, _, name = task.partition("-")
    known = [f"dmc/{d}-{t}" for d, t in suite.ALL_TASKS]
    if f"dmc/{task}" not in known:
        hint = did_you_mean(f"dmc/{task}", known)
        raise OptionError("data.env.name", f"dmc/{task}", f"a task of the DeepMind Control suite{hint}")
    if max_episode_steps is None:
        return DMC(domain, name, **kwargs)
    return TimeLimit(DMC(domain, name, **{"time_limit": float("inf"), **kwargs}), max_episode_steps)


class DMC(gym.Env):
    """One task of the suite: the observation is its dict's entries in order, flattened, float32.

    A last step with discount 1 is `truncated` (the time limit), with discount 0 `terminated`.

    Args:
        domain: such as `walker`.
        task: such as `walk`.
        render_mode: `"rgb_array"` for images of 480 x 480 pixels from the task's first camera; None: no images.
        **task_kwargs: arguments of the task's function.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, domain: str, task: str, render_mode: str | None = None, **task_kwargs: Any) -> None:
        from dm_control import suite

        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode has to be rgb_array, not {render_mode}")
        self.render_mode = render_mode
        # A fixed default, because some tasks (lqr) draw their body with it; episodes draw from the seed of `reset`.
        self._env = suite.load(domain, task, task_kwargs={"random": 0, **task_kwargs})
        size = sum(int(np.prod(entry.shape)) for entry in self._env.observation_spec().values())
        action = self._env.action_spec()
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        low, high = (np.broadcast_to(bound, action.shape) for bound in (action.minimum, action.maximum))
        self.action_space = gym.spaces.Box(
            np.where(low <= -_UNLIMITED, -np.inf, low).astype(np.float32),
            np.where(high >= _UNLIMITED, np.inf, high).astype(np.float32),
            dtype=np.float32,
        )
        self.metadata = {**self.metadata, "render_fps": round(1 / self._env.control_timestep())}
        limit = self._env._step_limit
        self.max_episode_steps = None if limit == float("inf") else int(np.ceil(limit))
        self._pristine_model = {name: value.copy() for name, value in self._model_arrays().items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [O] float32 and an empty info."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed)
        return self._observation(self._env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step."""
        step = self._env.step(action)
        last = step.last()
        return (
            self._observation(step),
            float(step.reward),
            last and step.discount == 0.0,
            last and step.discount != 0.0,
            {},
        )

    @property
    def model(self) -> Any:
        """The `mujoco.MjModel`, under the name that it has in Gymnasium."""
        return self._env.physics.model.ptr

    def render(self) -> np.ndarray | None:
        """The image [480, 480, 3] uint8, None without a render mode."""
        return self.render_image(480, 0) if self.render_mode == "rgb_array" else None

    def render_image(self, size: int, camera: int | str) -> np.ndarray:
        """The image [size, size, 3] uint8 from one of the task's cameras."""
        return self._env.physics.render(size, size, camera_id=camera)

    def close(self) -> None:
        """Frees the simulation."""
        self._env.close()

    def extra_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain values and numpy arrays: see `state.py`."""
        physics, task = self._env.physics, self._env.task
        return {
            "mujoco": mujoco_state(physics.model.ptr, physics.data.ptr),
            # Tasks move targets, walls and sites by editing the model; most of it never changes.
            "model": {
                name: value.copy()
                for name, value in self._model_arrays().items()
                if not np.array_equal(value, self._pristine_model[name], equal_nan=True)
            },
            "task": fields(task),
            "random": json.dumps(task.random.get_state(legacy=False), default=np.ndarray.tolist),
            "step_count": self._env._step_count,
            "reset_next_step": self._env._reset_next_step,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        physics, task = self._env.physics, self._env.task
        for name, value in self._model_arrays().items():
            value[...] = state["model"].get(name, self._pristine_model[name])
        set_mujoco_state(physics.model.ptr, physics.data.ptr, state["mujoco"])
        set_fields(task, state["task"])
        task.random.set_state(json.loads(state["random"]))
        self._env._step_count = state["step_count"]
        self._env._reset_next_step = state["reset_next_step"]

    def _model_arrays(self) -> dict[str, np.ndarray]:
        model = self._env.physics.model.ptr
        names = (name for name in dir(model) if not name.startswith(("_", *_MODEL_ASSETS)))
        arrays = ((name, getattr(model, name)) for name in names)
        return {
            name: value
            for name, value in arrays
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size and value.flags.writeable
        }

    def _observation(self, step: Any) -> np.ndarray:
        return np.concatenate([np.ravel(entry) for entry in step.observation.values()]).astype(np.float32)
