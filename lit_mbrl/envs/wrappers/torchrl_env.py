"""TorchRL's environments and transforms as Gymnasium's, so that everything here works with them as with any other.

TorchRL environment  -> TorchRLEnv -> [our checks, action range, flat observation, workers, ...]
Gymnasium environment -> GymWrapper -> TransformedEnv -> Transformed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, OneHot, TensorSpec
from torchrl.envs import Compose, EnvBase, GymWrapper, Transform, TransformedEnv
from torchrl.envs.utils import step_mdp

from lit_mbrl.envs.state import StatefulWrapper
from lit_mbrl.envs.wrappers.images import is_image
from lit_mbrl.utils import class_path
from lit_mbrl.utils.errors import OptionError, require

_FLAGS = ("done", "terminated", "truncated")


class _Stepper:
    """Steps one TorchRL environment with numpy arrays, and remembers the root of its next step."""

    def __init__(self, env: EnvBase, option: str, name: Any, observation_only: bool = False) -> None:
        require(
            env.batch_size.numel() == 1,
            option,
            name,
            f"an environment of batch size [] (this one's: {list(env.batch_size)}); data.env.num_envs makes copies",
        )
        self.env, self._batch = env, env.batch_size
        entries = {key: spec for key, spec in env.observation_spec.items() if key not in _FLAGS}
        if observation_only:
            expected = f"transforms that leave an entry `observation` (they leave {', '.join(entries)})"
            require("observation" in entries, option, name, expected)
            entries = {"observation": entries["observation"]}
        self.observations = Composite(entries, shape=env.batch_size)
        self.one_hot = isinstance(env.action_spec, OneHot)
        self._action = env.action_spec
        self.root: TensorDictBase = TensorDict({}, self._batch)

    def reset(self, seed: int | None) -> Any:
        if seed is not None:
            self.env.set_seed(seed)
        self.root = self.env.reset()
        return self._observation(self.root)

    def step(self, action: Any) -> tuple[Any, float, bool, bool]:
        value = torch.as_tensor(action)
        if self.one_hot:
            value = torch.nn.functional.one_hot(value.long(), self._action.shape[-1])
        root = self.root.set(self.env.action_key, value.to(self._action.dtype).reshape(self._action.shape))
        with torch.no_grad():
            out = self.env.step(root)
        following = out["next"]
        terminated, done = bool(following.get("terminated", following["done"])), bool(following["done"])
        truncated = bool(following.get("truncated", torch.tensor(False))) or (done and not terminated)
        self.root = step_mdp(out)
        return self._observation(following), float(following[self.env.reward_key]), terminated, truncated

    def _observation(self, root: TensorDictBase) -> Any:
        batch = len(self._batch)

        def values(spec: Composite, part: Any) -> dict[str, Any]:
            return {
                key: values(inner, part[key])
                if isinstance(inner, Composite)
                else part[key].detach().cpu().reshape(inner.shape[batch:]).numpy().copy()
                for key, inner in spec.items()
            }

        found = values(self.observations, root)
        return found["observation"] if list(found) == ["observation"] else found

    def observation_space(self) -> gym.Space:
        """Returns the space of what `reset` returns: of the entry `observation`, if there is no other."""
        space = _space(self.observations, len(self._batch))
        assert isinstance(space, gym.spaces.Dict)
        return space["observation"] if list(space) == ["observation"] else space

    def action_space(self, option: str, name: Any) -> gym.Space:
        if self.one_hot or isinstance(self._action, Categorical):
            return gym.spaces.Discrete(int(self._action.space.n))
        bounded = isinstance(self._action, Bounded) and self._action.dtype.is_floating_point
        require(
            bounded, option, name, f"an environment whose action is bounded or one of n (this one's: {self._action})"
        )
        return _box(self._action, len(self._batch))

    def state(self) -> dict[str, np.ndarray]:
        """Returns the root of the next step, by dotted names."""
        leaves = self.root.flatten_keys(".").items()
        return {key: value.detach().cpu().numpy().copy() for key, value in leaves}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        values = {key: torch.from_numpy(np.asarray(value).copy()) for key, value in state.items()}
        self.root = TensorDict(values, self._batch).unflatten_keys(".")


class TorchRLEnv(gym.Env):
    """A TorchRL environment as one of Gymnasium's.

    Its observation is the entry `"observation"`, or a dictionary if there are others (`data.env.observation_keys`).
    Exact resume asks it for `get_env_state()`, plain values and numpy arrays, and `set_env_state(state)`; without them
    a resumed run begins new episodes.

    Args:
        name: `torchrl/package.module.Name`, a class or function that returns a `torchrl.envs.EnvBase`.
        **kwargs: its arguments.

    Raises:
        OptionError: if it is no such environment, is a batch of several, or its actions are unbounded.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        path = name.partition("/")[2]
        env = class_path.find("data.env.name", path)(**kwargs)
        require(isinstance(env, EnvBase), "data.env.name", name, "the path of what returns a torchrl.envs.EnvBase")
        self._stepper = _Stepper(env, "data.env.name", name)
        self.observation_space = self._stepper.observation_space()
        self.action_space = self._stepper.action_space("data.env.name", name)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Gymnasium's reset."""
        super().reset(seed=seed)
        return self._stepper.reset(seed), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Gymnasium's step."""
        return *self._stepper.step(action), {}

    def close(self) -> None:
        """Closes the environment."""
        if not self._stepper.env.is_closed:
            self._stepper.env.close()

    def extra_state(self) -> dict[str, Any] | None:
        """Returns the environment's state; None if it has no `get_env_state`."""
        get = getattr(self._stepper.env, "get_env_state", None)
        return None if get is None else {"env": get(), "root": self._stepper.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._stepper.env.set_env_state(state["env"])
        self._stepper.set_state(state["root"])


class Transformed(StatefulWrapper):
    """A Gymnasium environment with TorchRL's transforms; the agent sees the entry `"observation"` that they leave.

    Args:
        env: the environment, its observation a float32 vector or an image.
        transforms: as `data.env.transforms`.

    Raises:
        OptionError: if one cannot be made, or what comes out is neither a vector nor an image `"observation"`.
    """

    def __init__(self, env: gym.Env, transforms: Sequence[Any]) -> None:
        super().__init__(env)
        option, given = "data.env.transforms", list(transforms)
        made = [class_path.make(option, entry, Transform) for entry in given]
        try:
            inner = GymWrapper(env, device="cpu", categorical_action_encoding=True)
            self._stepper = _Stepper(TransformedEnv(inner, Compose(*made)), option, given, observation_only=True)
            spaces = self._stepper.observation_space(), self._stepper.action_space(option, given)
        except OptionError:
            raise
        except Exception as error:  # whatever a transform raises about an environment that it does not suit
            reason = f"transforms that suit this environment ({type(error).__name__}: {error})"
            raise OptionError(option, given, " ".join(reason.split())) from error
        self.observation_space, self.action_space = spaces
        space = self.observation_space
        vector = isinstance(space, gym.spaces.Box) and space.dtype == np.float32 and len(space.shape) == 1
        expected = f"transforms whose `observation` is a float32 vector or an image (it is {space})"
        require(vector or is_image(space), option, given, expected)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Gymnasium's reset."""
        return self._stepper.reset(seed), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Gymnasium's step."""
        return *self._stepper.step(action), {}

    def extra_state(self) -> dict[str, Any]:
        """Returns the root of the next step, and what the transforms remember."""
        remembered = self._stepper.env.transform.state_dict()
        return {
            "root": self._stepper.state(),
            "transforms": {key: value.cpu().numpy().copy() for key, value in remembered.items()},
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._stepper.set_state(state["root"])
        values = {key: torch.from_numpy(np.asarray(value).copy()) for key, value in state["transforms"].items()}
        self._stepper.env.transform.load_state_dict(values)


def _space(spec: TensorSpec, batch: int) -> gym.Space:
    """Returns Gymnasium's space of a TorchRL spec with so many batch dimensions."""
    if isinstance(spec, Composite):
        return gym.spaces.Dict({key: _space(inner, batch) for key, inner in spec.items()})
    if isinstance(spec, Categorical) and len(spec.shape) == batch:
        return gym.spaces.Discrete(int(spec.space.n))
    return _box(spec, batch)


def _box(spec: TensorSpec, batch: int) -> gym.spaces.Box:
    shape, dtype = tuple(spec.shape[batch:]), torch.empty(0, dtype=spec.dtype).numpy().dtype
    if isinstance(spec, Bounded):
        low, high = (bound.cpu().reshape(shape).numpy() for bound in (spec.space.low, spec.space.high))
        return gym.spaces.Box(low, high, dtype=dtype.type)
    limits = (-np.inf, np.inf) if dtype.kind == "f" else (0, 1) if dtype.kind == "b" else _range(dtype)
    return gym.spaces.Box(*limits, shape, dtype.type)


def _range(dtype: np.dtype) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
