"""One name in, one Gymnasium environment out, whatever library it is from. Simulators are imported when asked for."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from lit_mbrl.envs.guard import EnvFailed, Guard, one_line, watched
from lit_mbrl.envs.spec import TIMEOUT, EnvConfig, Features, Spec
from lit_mbrl.envs.tasks import goals, mazes, mbpo, pets, poplin, rewards, robotics, tdm, terminations, world_models
from lit_mbrl.envs.wrappers import pixels
from lit_mbrl.envs.wrappers.actions import scale_actions
from lit_mbrl.envs.wrappers.flat import FlatObservation
from lit_mbrl.envs.wrappers.images import ChannelFirst, is_channel_first, is_image
from lit_mbrl.envs.wrappers.repeat import ActionRepeat
from lit_mbrl.utils.c_output import quiet_c_code
from lit_mbrl.utils.errors import OptionError, TrainingError, did_you_mean
from lit_mbrl.utils.overdue import WATCH

L = TypeVar("L", bound=gym.Wrapper)
_PAPERS: dict[str, Any] = {
    "poplin": poplin,
    "mbpo": mbpo,
    "pets": pets,
    "maze": mazes,
    "goals": goals,
    "tdm": tdm,
    "world_models": world_models,
}


def registered_variants() -> list[str]:
    """Names of the papers' tasks, such as `poplin/Hopper`."""
    return [f"{family}/{task}" for family, tasks in _PAPERS.items() for task in tasks.TASKS]


def make_gym(name: str, *, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """Makes one environment with actions in [-1, 1] and flat float32 observations, or images uint8 `[C, H, W]`.

    Dictionaries and one of n become vectors, too (`wrappers.flat`).

    Finite action ranges are rescaled linearly, integers rounded; discrete actions stay as they are. What the
    environment raises and hands over passes through a `guard.Guard`.

    Args:
        name: see `EnvConfig`.
        max_episode_steps: truncate after so many steps; None keeps the environment's own limit.
        **kwargs: arguments of the environment's constructor.

    Raises:
        OptionError: if the name or an argument is wrong, a package is missing, or observations are of another kind.
        EnvFailed: if its constructor raises, or does not return.
    """
    return _make(name, max_episode_steps, kwargs, TIMEOUT, None)


def _make(
    name: str, max_episode_steps: int | None, kwargs: dict[str, Any], timeout: float | None, keys: list[str] | None
) -> gym.Env:
    module, colon, _ = name.partition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        raise _unknown(name)
    WATCH.start()
    try:
        # Gymnasium warns of every superseded version (`Ant-v4`); whoever names one means it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = watched(lambda: _build(name, max_episode_steps, kwargs), name, lambda: "constructor", timeout)
        return _standardize(env, name, timeout, keys)
    except EnvFailed as failed:
        _explain(failed.__cause__, name, kwargs)
        raise


def _explain(error: BaseException | None, name: str, kwargs: dict[str, Any]) -> None:
    """Raises `OptionError` if an environment could not be made because of its name, its arguments or a package."""
    if isinstance(error, ImportError | gym.error.DependencyNotInstalled):
        raise OptionError("data.env.name", name, f"an installed environment ({_line(error)})") from error
    if isinstance(error, gym.error.Error):  # unknown, removed or malformed ids
        raise _unknown(name) from error
    if kwargs and isinstance(error, TypeError | ValueError | AssertionError | OSError):
        raise OptionError("data.env.kwargs", kwargs, f"arguments that {name} takes ({_line(error)})") from error


def make_configured(config: EnvConfig) -> gym.Env:
    """One copy of the environment that a config describes, with its repeated actions and its images.

    Raises:
        OptionError: as `make_gym`; or if images are asked for and cannot be drawn.
    """
    if config.name.startswith("procgen/"):
        from lit_mbrl.envs.tasks import procgen_games

        procgen_games.check(config)
    kwargs = config.kwargs if config.pixels is None else pixels.arguments(config)
    limit, timeout, keys = config.max_episode_steps, config.timeout, config.observation_keys
    try:
        env = _make(config.name, limit, kwargs, timeout, keys)
    except OptionError as error:
        if config.pixels is None or "'render_mode'" not in error.expected:
            raise
        # It takes no such argument: it has an image of its own, or none.
        env = _make(config.name, limit, config.kwargs, timeout, keys)
    if config.action_repeat > 1:
        env = ActionRepeat(env, config.action_repeat)
    try:
        if config.pixels is not None:
            env = pixels.PixelObservation(env, config)
        if config.transforms:
            from lit_mbrl.envs.wrappers.torchrl_env import Transformed

            env = Transformed(env, config.transforms)
        return env
    except BaseException:
        env.close()
        raise


def spec_of(env: gym.Env, name: str) -> Spec:
    """Describes an environment made by `make_gym`, for algorithms.

    Raises:
        OptionError: if the action is neither a vector nor one of n.
    """
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, Box)  # of all others `make_gym` has made vectors
    flat = _layer(env, FlatObservation)
    vectors = flat is not None and not is_image(observation)
    discrete = isinstance(action, Discrete)
    if not discrete and (not isinstance(action, Box) or len(action.shape) != 1):
        raise OptionError(
            "data.env.name", name, f"an environment whose action is a vector or one of n (this one's: {action})"
        )
    return Spec(
        name,
        int(np.prod(observation.shape)),
        int(action.n) if isinstance(action, Discrete) else action.shape[0],
        discrete=discrete,
        max_episode_steps=_step_limit(env),
        observation_shape=tuple(map(int, observation.shape)),
        parts=flat.parts if vectors else {},
        states=flat.states if vectors else None,
    )


def make_spec(config: EnvConfig, check: Callable[[gym.Env, EnvConfig], tuple[str, ...]] | None = None) -> Spec:
    """Makes the environment, or each of several, once to look at it, and closes it.

    Args:
        check: called with each environment and its config; returns the spec's `remarks`.

    Raises:
        OptionError: as `make_gym` and `spec_of`; if the environment fails; or if several tasks do not go together.
    """
    if config.other_tasks:
        return _common([make_spec(config.of_copy(i), check) for i in range(len(config.tasks))])
    with refused(config.name):
        env = make_configured(config)
        try:
            spec = spec_of(env, config.name)
            remarks = () if check is None else check(env, config)
        except BaseException:
            with contextlib.suppress(EnvFailed):
                env.close()
            raise
        env.close()
    # The rules read observations, and say what one step of the environment does.
    known = not spec.pixels and config.action_repeat == 1 and not config.transforms
    if not known:
        return replace(spec, remarks=remarks)
    name, kwargs = config.name, config.kwargs
    rule, reward, features = (find(name, kwargs) for find in (terminations.rule, rewards.rule, rewards.features))
    goal_reward = rewards.goal_rule(name)
    return replace(spec, terminated=rule, reward=reward, features=features, goal_reward=goal_reward, remarks=remarks)


@contextlib.contextmanager
def refused(name: str) -> Iterator[None]:
    """Around the making of an environment that nothing depends on yet: what is wrong with it is the user's choice.

    Raises:
        OptionError: in the place of `EnvFailed`, which is its cause, and of a worker's death.
    """
    try:
        yield
    except TrainingError as error:
        if not isinstance(error, EnvFailed):
            raise OptionError("data.env.name", name, f"an environment that works, but its {error}") from error
        expected = f"an environment that works, but ({error.where}) {error.problem}"
        raise OptionError("data.env.name", name, expected) from error


def _common(specs: list[Spec]) -> Spec:
    """Describes these environments for an agent that is to act in all of them."""
    first = specs[0]
    for spec in specs[1:]:
        kind = spec.observation_shape, spec.discrete
        if spec.discrete or kind != (first.observation_shape, first.discrete):
            shapes = f"{spec.observation_shape}, not {first.observation_shape}"
            expected = f"tasks with continuous actions and the observations of {first.name} ({spec.name} has {shapes})"
            raise OptionError("data.env.other_tasks", spec.name, expected)
    limits = [spec.max_episode_steps for spec in specs]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    return replace(
        first,
        remarks=tuple(remark for spec in specs for remark in spec.remarks),
        name=f"{first.name} and {len(specs) - 1} more",
        action_dim=max(spec.action_dim for spec in specs),
        max_episode_steps=longest,
        terminated=None,
        reward=None,
        goal_reward=None,
        features=Features(),
    )


def _build(name: str, max_episode_steps: int | None, kwargs: dict[str, Any]) -> gym.Env:
    family, _, task = name.partition("/")
    if name in registered_variants():
        _log_mujoco_warnings()
        return _PAPERS[family].make(task, max_episode_steps, **kwargs)
    if family in _PAPERS:
        raise _unknown(name)
    if family == "dmc":
        try:
            import dm_control.suite  # noqa: F401
        except ImportError as error:
            raise _missing(name, "dm_control", "dm-control", error) from error
        from lit_mbrl.envs.tasks import dmc

        _log_mujoco_warnings()
        return dmc.make(task, max_episode_steps, **kwargs)
    if family == "procgen":
        from lit_mbrl.envs.tasks.procgen_games import ProcgenGame

        return ProcgenGame(name, max_episode_steps, **kwargs)
    if family == "torchrl":
        from lit_mbrl.envs.wrappers.torchrl_env import TorchRLEnv

        own = TorchRLEnv(name, **kwargs)
        return own if max_episode_steps is None else gym.wrappers.TimeLimit(own, max_episode_steps)
    if name.startswith(robotics.PREFIXES):
        _log_mujoco_warnings()
        try:
            return robotics.make(name, max_episode_steps, **kwargs)
        except ImportError as error:
            raise _missing(name, "Gymnasium-Robotics", "gymnasium-robotics", error) from error
    if "bullet" in name.lower():
        return _build_bullet(name, max_episode_steps, kwargs)
    registered = gym.registry.get(name)
    if registered is not None and str(registered.entry_point).startswith("gymnasium.envs.mujoco"):
        _log_mujoco_warnings()
    return gym.make(name, max_episode_steps, disable_env_checker=True, **kwargs)


def _build_bullet(name: str, max_episode_steps: int | None, kwargs: dict[str, Any]) -> gym.Env:
    with quiet_c_code():
        try:
            import pybullet_envs_gymnasium  # noqa: F401  registers its ids
        except ImportError as error:
            raise _missing(name, "PyBullet", "pybullet pybullet-envs-gymnasium", error) from error
        env = gym.make(name, max_episode_steps, disable_env_checker=True, **kwargs)
        env.reset()  # connects to the simulator, which prints
    return env


def _standardize(env: gym.Env, name: str, timeout: float | None, keys: list[str] | None) -> gym.Env:
    spaces = [getattr(env, space, None) for space in ("observation_space", "action_space")]
    for space, kind in zip(spaces, ("observation_space", "action_space"), strict=True):
        if not isinstance(space, gym.Space):
            raise OptionError(
                "data.env.name", name, f"an environment whose {kind} is one of Gymnasium's, not {space!r}"
            )
    observation, action = spaces
    env = Guard(env, name, timeout)
    if isinstance(action, Box):
        env = scale_actions(env, name)
    if is_image(observation):
        return env if is_channel_first(observation.shape) else ChannelFirst(env)
    if isinstance(observation, Box) and observation.dtype == np.float32 and len(observation.shape) == 1 and not keys:
        return env
    try:
        return FlatObservation(env, name, keys)
    except OptionError:
        env.close()
        raise


def _layer(env: gym.Env, kind: type[L]) -> L | None:
    while isinstance(env, gym.Wrapper) and not isinstance(env, kind):
        env = env.env
    return env if isinstance(env, kind) else None


def _step_limit(env: gym.Env) -> int | None:
    layer, repeat = env, 1
    while isinstance(layer, gym.Wrapper) and not isinstance(layer, gym.wrappers.TimeLimit):
        repeat = layer.repeat if isinstance(layer, ActionRepeat) else repeat
        layer = layer.env
    is_limit = isinstance(layer, gym.wrappers.TimeLimit)
    limit = layer._max_episode_steps if is_limit else getattr(layer, "max_episode_steps", None)
    return None if limit is None else -(-limit // repeat)


def _unknown(name: str) -> OptionError:
    known = [*registered_variants(), *gym.registry]
    return OptionError(
        "data.env.name",
        name,
        "a Gymnasium id (of your own: module:Id-v0), a PyBullet id, dmc/<domain>-<task>, procgen/<game>-<mode>, "
        "torchrl/<package.module.Name>, or a paper's task such as poplin/Hopper" + did_you_mean(name, known),
    )


def _missing(name: str, what: str, packages: str, error: ImportError) -> OptionError:
    return OptionError("data.env.name", name, f"{what} to be installed: pip install {packages} ({_line(error)})")


def _line(error: BaseException) -> str:
    return one_line(error).partition(" was raised from the environment creator")[0]


def _log_mujoco_warnings() -> None:
    """Sends MuJoCo's warnings to `logging`; on its own MuJoCo appends them to a file in the working directory."""
    try:
        import mujoco
    except ImportError:
        return  # the environment's own import says what to install
    mujoco.set_mju_user_warning(_on_mujoco_warning)


def _on_mujoco_warning(message: str) -> None:
    # Deprecated attributes in the model files of Gymnasium and dm_control are nothing that a user could mend.
    logging.getLogger(__name__).log(logging.DEBUG if "is deprecated" in message else logging.WARNING, message.strip())
