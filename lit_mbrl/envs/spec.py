"""An environment as a user configures it (`EnvConfig`) and as algorithms see it (`Spec`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lit_mbrl.utils.errors import require

TIMEOUT = 300.0


@dataclass
class PixelConfig:
    """The `data.env.pixels` section: observations are images of the environment, uint8 `[3, size, size]`.

    An environment whose own observation is an image keeps it, resized.

    Args:
        size: height and width.
        camera: name or number of a MuJoCo camera. None: Gymnasium's `track`, and the first of DeepMind Control, whose
            quadruped Dreamer sees from number 2.
        fast: MuJoCo draws without shadows, mirrors and smoothed edges, ten times as fast without a GPU. The images
            differ, so it is a part of the task: compare runs with the same value.

    Raises:
        OptionError: if a value is out of range.
    """

    size: int = 64
    camera: str | int | None = None
    fast: bool = True

    def __post_init__(self) -> None:
        sides = "an integer from 8 to 2048"
        require(_is_int(self.size) and 8 <= self.size <= 2048, "data.env.pixels.size", self.size, sides)
        require(
            self.camera is None or isinstance(self.camera, str) or (_is_int(self.camera) and self.camera >= 0),
            "data.env.pixels.camera",
            self.camera,
            "a camera's name or number, or null",
        )
        require(isinstance(self.fast, bool), "data.env.pixels.fast", self.fast, "true or false")


@dataclass
class EnvConfig:
    """The `data.env` section of a config file.

    Args:
        name: a Gymnasium id (`HalfCheetah-v5`, `package:Id-v0`), a PyBullet id (`HopperBulletEnv-v0`), a DeepMind
            Control task (`dmc/walker-walk`), a Procgen game (`procgen/fruitbot-easy`) or a task of a paper
            (`poplin/Hopper`, `mbpo/AntTruncatedObs`).
        kwargs: arguments of the environment's constructor.
        max_episode_steps: truncate after so many steps; None keeps the environment's own limit.
        num_envs: copies that run side by side.
        workers: step, and draw, the copies in worker processes instead of this one; Procgen's games in threads.
        action_repeat: steps of the environment per step of the agent, with the same action; rewards add up. Limits
            count the environment's steps, everything else the agent's.
        pixels: observe images instead of the environment's own observation (`PixelConfig`); None: do not.
        eval_kwargs: arguments that differ in evaluation, such as levels of a Procgen game that are new to the agent.
            The environment with `kwargs` alone is then evaluated, too. None: there is one evaluation, with `kwargs`.
        other_tasks: further environments for the same agent and their action repeats, `{dmc/walker-walk: 2}`. The
            copies take turns: `name`, the first other task, ..., `name` again. Actions are as long as the longest; the
            others leave out what they have no use for.
        max_eval_steps: steps of the agent after which evaluation ends an episode, where the environment has no limit.
        observation_keys: which entries of an observation that is a dictionary, in this order; None: all, in its own.
        timeout: seconds that a call of the environment (its constructor, a step, a reset) may take; None: for ever.

    Raises:
        OptionError: if a value is out of range.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    num_envs: int = 1
    workers: bool = False
    action_repeat: int = 1
    pixels: PixelConfig | None = None
    eval_kwargs: dict[str, Any] | None = None
    other_tasks: dict[str, int] = field(default_factory=dict)
    max_eval_steps: int = 10_000
    timeout: float | None = TIMEOUT
    observation_keys: list[str] | None = None

    def __post_init__(self) -> None:
        limit = self.max_episode_steps
        require(
            isinstance(self.name, str) and self.name != "" and self.name.count(":") < 2,
            "data.env.name",
            self.name,
            "the name of an environment",
        )
        require(isinstance(self.kwargs, dict), "data.env.kwargs", self.kwargs, "a mapping of constructor arguments")
        require(
            self.eval_kwargs is None or (isinstance(self.eval_kwargs, dict) and len(self.eval_kwargs) > 0),
            "data.env.eval_kwargs",
            self.eval_kwargs,
            "a mapping of constructor arguments, or null",
        )
        for option, kwargs in (("kwargs", self.kwargs), ("eval_kwargs", self.eval_kwargs or {})):
            reserved = sorted({"name", "max_episode_steps"} & set(kwargs))
            require(not reserved, f"data.env.{option}", kwargs, f"{', '.join(reserved)} one level up, in data.env")
        require(
            limit is None or (_is_int(limit) and limit >= 1),
            "data.env.max_episode_steps",
            limit,
            "an integer >= 1 or null",
        )
        require(_is_int(self.num_envs) and self.num_envs >= 1, "data.env.num_envs", self.num_envs, "an integer >= 1")
        require(isinstance(self.workers, bool), "data.env.workers", self.workers, "true or false")
        repeat = self.action_repeat
        require(_is_int(repeat) and repeat >= 1, "data.env.action_repeat", repeat, "an integer >= 1")
        steps, timeout = self.max_eval_steps, self.timeout
        require(_is_int(steps) and steps >= 1, "data.env.max_eval_steps", steps, "an integer >= 1")
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        require(
            timeout is None or (is_number and math.isfinite(timeout) and timeout > 0),
            "data.env.timeout",
            timeout,
            "a number of seconds > 0, or null",
        )
        keys = self.observation_keys
        distinct = keys is None or (len(keys) > 0 and len(set(keys)) == len(keys))
        require(distinct, "data.env.observation_keys", keys, "different keys of a dictionary, or null for all")
        others = self.other_tasks
        require(
            self.name not in others and all(_is_int(repeat) and repeat >= 1 for repeat in others.values()),
            "data.env.other_tasks",
            others,
            "other environments than data.env.name, with their action repeats, as {dmc/walker-walk: 2}",
        )

    @property
    def tasks(self) -> list[str]:
        """Names of all environments."""
        return [self.name, *self.other_tasks]

    @property
    def frames_per_step(self) -> float:
        """Steps of an environment per step of the agent, on average over the tasks."""
        return (self.action_repeat + sum(self.other_tasks.values())) / len(self.tasks)

    def of_copy(self, index: int) -> EnvConfig:
        """The config of a copy, with its own task alone."""
        task = self.tasks[index % len(self.tasks)]
        repeat = self.other_tasks.get(task, self.action_repeat)
        return replace(self, name=task, action_repeat=repeat, other_tasks={})

    def eval_config(self) -> EnvConfig:
        """The environment that `eval/return` is about."""
        return replace(self, kwargs={**self.kwargs, **(self.eval_kwargs or {})}, eval_kwargs=None)


class Features(NamedTuple):
    """What a model reads of a task's observation and how it predicts the next one, by positions in the observation.

    Attributes:
        angles: read as sine and cosine.
        absolute: predicted as they are; of all others the change is predicted.
        unused: not read.
    """

    angles: tuple[int, ...] = ()
    absolute: tuple[int, ...] = ()
    unused: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spec:
    """An environment as algorithms see it.

    Args:
        name: as in `EnvConfig`.
        observation_dim: O, length of the flat observation: the number of its entries.
        action_dim: A, length of the action in [-1, 1]; the number of actions if `discrete`.
        discrete: whether an action is an index in 0..A-1 instead of a vector.
        max_episode_steps: steps of the agent after which an episode is truncated, None if it never is.
        terminated: the termination rule, where it is known (`envs.tasks.terminations`).
        reward: the reward, where it is known (`envs.tasks.rewards`).
        features: of the observation, for models that ask (`envs.tasks.rewards`).
        observation_shape: `[O]` for float32 vectors, `[C, H, W]` for uint8 images; `[O]` if left out.
        parts: columns of the observation by entry, `desired_goal`, where the environment's is a dictionary or tuple.
        states: n, if the environment's observation is one of n, whose one-hot the vector is; None if it is not.
        remarks: what is not as Gymnasium asks, but does no harm.
    """

    name: str
    observation_dim: int
    action_dim: int
    discrete: bool = False
    max_episode_steps: int | None = None
    terminated: Callable[[Any, Any, Any], Any] | None = field(default=None, compare=False, repr=False)
    reward: Callable[[Any, Any, Any], Any] | None = field(default=None, compare=False, repr=False)
    features: Features = field(default=Features(), compare=False, repr=False)
    observation_shape: tuple[int, ...] = ()
    parts: Mapping[str, slice] = field(default_factory=dict, hash=False)
    states: int | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.observation_shape:
            object.__setattr__(self, "observation_shape", (self.observation_dim,))

    @property
    def pixels(self) -> bool:
        """Returns whether observations are images, uint8 `[C, H, W]`, instead of float32 vectors."""
        return len(self.observation_shape) == 3


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
