"""An environment as a user configures it (`EnvConfig`) and as algorithms see it (`Spec`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, NamedTuple

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveFloat, PositiveInt, Rule

TIMEOUT = 300.0


Arguments = Annotated[dict[str, Any], Rule("a mapping of constructor arguments", lambda given: True)]

_OTHERS = "other environments than data.env.name, with their action repeats, as {dmc/walker-walk: 2}"
OtherTasks = Annotated[dict[str, PositiveInt], Rule(_OTHERS, lambda given: True)]
Camera = Annotated[
    str | int | None,
    Rule("a camera's name or number, or null", lambda camera: not isinstance(camera, int) or camera >= 0),
]
Keys = Annotated[
    tuple[str, ...],
    Rule("different keys of a dictionary", lambda keys: 0 < len(keys) == len(set(keys))),
]


@options(eq=True, repr=True)
class PixelConfig:
    """The `data.env.pixels` section: observations are images of the environment, uint8 `[3, size, size]`.

    An environment whose own observation is an image keeps it, resized.
    """

    section: ClassVar[str] = "data.env.pixels"

    size: Annotated[int, Rule("an integer from 8 to 2048", lambda side: 8 <= side <= 2048)] = 64
    """Height and width."""
    camera: Camera = None
    """Name or number of a MuJoCo camera. Null: Gymnasium's `track`, and the first of DeepMind Control, whose quadruped
    Dreamer sees from number 2."""
    fast: bool = True
    """MuJoCo draws without shadows, mirrors and smoothed edges, ten times as fast without a GPU. The images differ, so
    it is a part of the task: compare runs with the same value."""


@options(eq=True, repr=True)
class EnvConfig:
    """The `data.env` section of a config file."""

    section: ClassVar[str] = "data.env"

    name: Annotated[str, Rule("the name of an environment", lambda name: name != "" and name.count(":") < 2)] = field(
        kw_only=False
    )
    """A Gymnasium id (`HalfCheetah-v5`, `package:Id-v0`), a PyBullet id (`HopperBulletEnv-v0`), a DeepMind Control task
    (`dmc/walker-walk`), a Procgen game (`procgen/fruitbot-easy`), a task of a paper (`poplin/Hopper`,
    `mbpo/AntTruncatedObs`), or `torchrl/` and the path of a class or function that returns a TorchRL environment
    (`torchrl/package.module.Name`)."""
    kwargs: Arguments = field(default_factory=dict, kw_only=False)
    """Arguments of the environment's constructor."""
    max_episode_steps: PositiveInt | None = None
    """Truncate after so many steps; null keeps the environment's own limit."""
    num_envs: PositiveInt = 1
    """Copies that run side by side."""
    workers: bool = False
    """Step, and draw, the copies in worker processes instead of this one; Procgen's games in threads."""
    action_repeat: PositiveInt = 1
    """Steps of the environment per step of the agent, with the same action; rewards add up. Limits count the
    environment's steps, everything else the agent's."""
    pixels: PixelConfig | None = None
    """Observe images instead of the environment's own observation (`PixelConfig`); null: do not."""
    eval_kwargs: Arguments | None = None
    """Arguments that differ in evaluation, such as levels of a Procgen game that are new to the agent. The environment
    with `kwargs` alone is then evaluated, too. Null: there is one evaluation, with `kwargs`."""
    other_tasks: OtherTasks = field(default_factory=dict)
    """Further environments for the same agent and their action repeats, `{dmc/walker-walk: 2}`. The copies take turns:
    `name`, the first other task, ..., `name` again. Actions are as long as the longest; the others leave out what they
    have no use for."""
    max_eval_steps: PositiveInt = 10_000
    """Steps of the agent after which evaluation ends an episode, where the environment has no limit."""
    timeout: PositiveFloat | None = TIMEOUT
    """Seconds that a call of the environment (its constructor, a step, a reset) may take; null: for ever."""
    observation_keys: Keys | None = None
    """Which entries of an observation that is a dictionary, in this order; null: all, in its own."""
    transforms: list[str | dict[str, Any]] = field(default_factory=list)
    """TorchRL's transforms of the environment's steps, each a path (`torchrl.envs.SignTransform`) or
    `{class_path: ..., init_args: {...}}`; they are made anew for each copy."""

    def __post_init__(self) -> None:
        some = "a mapping of constructor arguments, or null"
        require(self.eval_kwargs != {}, "data.env.eval_kwargs", self.eval_kwargs, some)
        for option, given in (("kwargs", self.kwargs), ("eval_kwargs", self.eval_kwargs or {})):
            ours = sorted({"name", "max_episode_steps"} & set(given))
            require(not ours, f"data.env.{option}", given, f"{', '.join(ours)} one level up, in data.env")
        require(self.name not in self.other_tasks, "data.env.other_tasks", self.other_tasks, _OTHERS)

    @classmethod
    def of_name(cls, name: str) -> EnvConfig:
        """Returns the environment of that name as it is: for `OffPolicy("Pendulum-v1")`."""
        return cls(name)

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
    """Assigns a model's inputs and prediction targets, by positions in the observation.

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
