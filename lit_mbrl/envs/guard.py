"""Checks what an environment does and hands over, where it is called: `Guard` is the wrapper next to it.

Gymnasium's own checkers (`gymnasium.utils.env_checker`, `PassiveEnvChecker`) know the same rules. They are not used
here since they warn of half of them, in a text each, check what training does not need (that every observation lies
within its bounds), and look at the first step only, or take as long as a Pendulum's step at each.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from lit_mbrl.envs.state import StatefulWrapper
from lit_mbrl.envs.wrappers.flat import what_differs
from lit_mbrl.utils.errors import OptionError, TrainingError
from lit_mbrl.utils.overdue import WATCH, Call, Overdue

T = TypeVar("T")
_LONGEST = 300  # characters of an exception's text
_NUMBERS = frozenset({float, np.float64, np.float32, np.float16, np.longdouble})


class EnvFailed(TrainingError):
    """An environment that raised, did not return, or handed over something wrong.

    Args:
        name: the environment.
        where: which copy, and in which step.
        problem: what is wrong.
        details: the traceback, if it raised.
    """

    def __init__(self, name: str, where: str, problem: str, details: str = "") -> None:
        self.name, self.where, self.problem, self.details = name, where, problem, details
        super().__init__(f"{name}, {where}: {problem}")

    def __reduce__(self) -> tuple:
        return EnvFailed, (self.name, self.where, self.problem, self.details)


class Guard(StatefulWrapper):
    """Looks at what `env` returns, limits the time it takes, and turns what it raises into `EnvFailed`.

    Args:
        env: the environment as its library makes it.
        name: for messages.
        timeout: seconds that a call may take; None: no limit.

    Attributes:
        copy: number among its equals, for messages; None: there is one.
        steps: taken in the running episode.
        remarks: what is not as it should be, but does no harm.
    """

    def __init__(self, env: gym.Env, name: str, timeout: float | None) -> None:
        super().__init__(env)
        self.name, self.timeout = name, timeout
        self.copy: int | None = None
        self.steps = 0
        self.remarks: list[str] = []
        space = env.observation_space
        self._box = isinstance(space, Box)
        self._shape, self._dtype = space.shape, space.dtype

    def extra_state(self) -> dict[str, Any]:
        """Describes how far the episode is."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """See `extra_state`."""
        self.steps = state["steps"]

    # ------------------------------------------------------------------ calls
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Gymnasium's reset."""
        self.steps = 0
        result = self._call(lambda: self.env.reset(seed=seed, options=options), self._reset_name)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._wrong(f"it returned {_kind(result)}, not (observation, info)", self._reset_name())
        observation, info = result
        self._look_at(observation, self._reset_name)
        if not isinstance(info, dict):
            raise self._wrong(f"its info is {_kind(info)}, not a dict", self._reset_name())
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Gymnasium's step."""
        self.steps += 1
        # `watched`, written out: its functions would cost as much as all the checks that follow.
        process = os.getpid()
        try:
            WATCH.running = call = Call(self._call_name, self.timeout)
            result = self.env.step(action)
        except BaseException as error:
            WATCH.running = None
            self._end_fork(process)
            raise_failure(error, self.name, self._step_name())
        WATCH.running = None
        if os.getpid() != process:
            self._end_fork(process)
        if call.late:  # it has swallowed what was to interrupt it
            raise EnvFailed(self.name, self._step_name(), _late(call.late))
        try:
            observation, reward, terminated, truncated, info = result
        except (TypeError, ValueError) as error:
            expected = "(observation, reward, terminated, truncated, info)"
            raise self._wrong(f"it returned {_kind(result)}, not {expected}", self._step_name()) from error
        if type(observation) is not np.ndarray or observation.shape != self._shape or observation.dtype != self._dtype:
            self._look_at(observation, self._step_name)
        if type(reward) not in _NUMBERS:
            reward = self._number(reward)
        if type(terminated) is not bool:
            terminated = self._flag("terminated", terminated)
        if type(truncated) is not bool:
            truncated = self._flag("truncated", truncated)
        if type(info) is not dict and not isinstance(info, dict):
            raise self._wrong(f"its info is {_kind(info)}, not a dict", self._step_name())
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Gymnasium's render; an environment that has none says so by `NotImplementedError`."""
        try:
            return self._call(self.env.render, self._step_name)
        except EnvFailed as error:
            if isinstance(error.__cause__, NotImplementedError):
                raise error.__cause__ from None
            raise

    def close(self) -> None:
        """Gymnasium's close."""
        self._call(self.env.close, lambda: f"{self._which()}close")

    def _call(self, function: Callable[[], T], where: Callable[[], str]) -> T:
        process = os.getpid()
        try:
            return watched(function, self.name, where, self.timeout)
        finally:
            self._end_fork(process)

    @staticmethod
    def _end_fork(process: int) -> None:
        """Ends a process that the environment has forked in a call, and that must not go on with the run."""
        if os.getpid() != process:
            os._exit(1)

    # ------------------------------------------------------------------ what it hands over
    def _look_at(self, observation: Any, where: Callable[[], str]) -> None:
        if not self._box:
            if problem := what_differs(self.env.observation_space, observation):
                raise self._wrong(f"its {problem} as its observation_space says", where())
            return
        if not isinstance(observation, np.ndarray):
            raise self._wrong(f"its observation is {_kind(observation)}, not a numpy array", where())
        if observation.shape != self._shape:
            shape = f"shape {list(observation.shape)}, not {list(self._shape or ())}"
            raise self._wrong(f"its observation has {shape} as its observation_space says", where())
        if observation.dtype != self._dtype:
            types = f"{observation.dtype}, not {self._dtype}"
            if not np.can_cast(observation.dtype, self._dtype, "same_kind"):
                raise self._wrong(f"its observation is of {types} as its observation_space says", where())
            remark = f"{self.name}: observations are of {types} as its observation_space says, and are converted"
            if remark not in self.remarks:
                self.remarks.append(remark)

    def _number(self, reward: Any) -> Any:
        if isinstance(reward, int | np.integer | np.floating) and not isinstance(reward, bool):
            try:
                return float(reward)
            except OverflowError:
                return float("inf")
        raise self._wrong(f"its reward is {_kind(reward)}, not a number", self._step_name())

    def _flag(self, name: str, flag: Any) -> bool:
        if isinstance(flag, np.bool_):
            return bool(flag)
        raise self._wrong(f"its {name} is {_kind(flag)}, not true or false", self._step_name())

    # ------------------------------------------------------------------ words
    def _wrong(self, problem: str, where: str) -> EnvFailed:
        return EnvFailed(self.name, where, problem)

    def _which(self) -> str:
        return "" if self.copy is None else f"copy {self.copy}, "

    def _reset_name(self) -> str:
        return f"{self._which()}reset"

    def _step_name(self) -> str:
        return f"{self._which()}step {self.steps:,} of an episode"

    def _call_name(self) -> str:
        return f"{self.name}, {self._step_name()}"


def watched(function: Callable[[], T], name: str, where: Callable[[], str], seconds: float | None) -> T:
    """Calls a function of an environment's, with a limit on its time.

    Args:
        function: what to call.
        name: the environment.
        where: which call it is.
        seconds: None: no limit.

    Raises:
        EnvFailed: if it raises, or does not return in time.
    """
    outer = WATCH.running
    try:
        WATCH.running = call = Call(lambda: f"{name}, {where()}", seconds)
        result = function()
    except BaseException as error:
        WATCH.running = outer
        raise_failure(error, name, where())
    WATCH.running = outer
    if call.late:
        raise EnvFailed(name, where(), _late(call.late))
    return result


def raise_failure(error: BaseException, name: str, where: str) -> NoReturn:
    """Raises `EnvFailed` for what an environment has raised; what is about the whole program goes on as it is."""
    if isinstance(error, Overdue):
        raise EnvFailed(name, where, _late(str(error))) from error
    ours = isinstance(error, TrainingError | OptionError | KeyboardInterrupt)
    if ours or type(error).__module__.startswith("lit_mbrl.callbacks"):  # of a signal handler
        raise error
    kind, text = type(error).__name__, one_line(error)
    problem = f"it called sys.exit({text})" if isinstance(error, SystemExit) else f"it raised {kind}: {text}"
    details = "".join(traceback.format_exception(error))
    raise EnvFailed(name, where, problem.removesuffix(": "), details) from error


def one_line(error: BaseException) -> str:
    """The text of an exception, printable and in one line."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def guard_of(env: gym.Env) -> Guard:
    """The `Guard` around an environment made by `make_gym`."""
    layer = env
    while not isinstance(layer, Guard):
        assert isinstance(layer, gym.Wrapper)  # `make` puts one around every environment
        layer = layer.env
    return layer


def _late(late: str) -> str:
    option = "" if "signal" in late else " (data.env.timeout)"
    return f"it did not return {late}{option}"


def _kind(value: Any) -> str:
    """A value's kind, as a message has it."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"of type {type(value).__name__}"
