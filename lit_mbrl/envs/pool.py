"""Several copies of an environment stepped together, in this process (`LocalPool`) or in workers (`WorkerPool`).

Both speak numpy only and this module imports no torch: a HalfCheetah worker takes some 70 MB instead of 0.7 GB. TorchRL
asks for the resets of finished copies itself, so nothing resets on its own here and the last observation of an episode
is never lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.make import describe, make_configured, spec_of
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.envs.transition import Transition
from lit_mbrl.utils.errors import RunFailed

MAX_RESTARTS = 3
_DIED = object()


class LocalPool:
    """`count` copies of an environment in this process.

    Args:
        config: which environment, or which several.
        count: copies.
        first: number of the first of these copies among all, where they are a worker's.
    """

    def __init__(self, config: EnvConfig, count: int, first: int | None = None) -> None:
        self._envs: list[gym.Env] = []
        try:
            for i in range(count):
                self._envs.append(make_configured(config.of_copy((first or 0) + i)))
            alone = first is not None or not config.other_tasks
            self.spec = spec_of(self._envs[0], config.name) if alone else describe(config)
        except BaseException:
            self.close()
            raise
        self._first_action = int(self._envs[0].action_space.start) if self.spec.discrete else 0
        self._observation_shape = (count, *self.spec.observation_shape)
        self._observation_dtype = np.uint8 if self.spec.pixels else np.float32
        self._flag_shape = (count, 1)
        # Of an action of several tasks each takes what it has a use for.
        self._used = [slice(np.prod(env.action_space.shape, dtype=int)) for env in self._envs]

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """Starts new episodes where `mask` [n] is True (everywhere if None); a seed that is not None reseeds that copy.

        Returns:
            Observations [n, O], of images [n, C, H, W]; zero for the copies that were not reset.
        """
        observation = np.zeros(self._observation_shape, self._observation_dtype)
        for i, env in enumerate(self._envs):
            if mask is None or mask[i]:
                observation[i] = env.reset(seed=seeds[i])[0]
        return observation

    def step(self, actions: np.ndarray) -> Transition:
        """Steps every copy with its row of `actions`, [n, A] or [n] indices."""
        out = Transition(
            np.empty(self._observation_shape, self._observation_dtype),
            np.empty(self._flag_shape, np.float32),
            np.empty(self._flag_shape, np.bool_),
            np.empty(self._flag_shape, np.bool_),
        )
        observation, reward, terminated, truncated = out
        for i, env in enumerate(self._envs):
            action = int(actions[i]) + self._first_action if self.spec.discrete else actions[i, self._used[i]]
            observation[i], reward[i, 0], terminated[i, 0], truncated[i, 0], _ = env.step(action)
        return out

    def restarted(self) -> dict[int, np.ndarray]:
        """None: these copies live and die with this process."""
        return {}

    @property
    def envs(self) -> list[gym.Env]:
        """The copies."""
        return self._envs

    def get_state(self) -> list[dict[str, Any] | None]:
        """`state.get_state` of every copy."""
        return [get_state(env) for env in self._envs]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """`state.set_state` of every copy."""
        for env, state in zip(self._envs, states, strict=True):
            set_state(env, state)

    def close(self) -> None:
        """Closes every copy."""
        while self._envs:
            self._envs.pop().close()


class WorkerPool:
    """`count` copies spread over worker processes, at most one per CPU core. Same results as `LocalPool`, bit for bit.

    A worker is a fresh interpreter that imports this module and nothing else of the running program, so it needs no
    `if __name__ == "__main__"` and stays free of torch; an environment of your own has to be named with the module that
    registers it (`package.module:Id-v0`). A worker ends with its pipe, also when this process is killed. POSIX only.

    A worker that dies while its copies are stepped or reset is started again, `MAX_RESTARTS` times in all. Its copies
    begin new episodes, which `restarted` tells.

    Raises:
        RunFailed: if a worker process dies too often, or where it cannot be replaced: while it starts, and while states
            are read or set. An exception raised by an environment is raised here as it is.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        self._config = config
        self._restarts = 0
        self._seeds: list[int | None] = [None] * count
        self._restarted: dict[int, np.ndarray] = {}
        self._begun: tuple[str, Sequence[tuple[Any, ...]], list[bool]] = ("", (), [])
        self.spec = describe(config)  # a wrong option is told here, before any process starts
        processes = min(count, os.cpu_count() or 1)
        bounds = [count * i // processes for i in range(processes + 1)]
        self._slices = [slice(first, last) for first, last in itertools.pairwise(bounds)]
        self._processes: list[subprocess.Popen] = []
        self._connections: list[Connection] = []
        try:
            for i in range(processes):
                self._start(i)
            self._call("__init__", *[(config, part.stop - part.start, part.start) for part in self._slices])
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes]

    def restarted(self) -> dict[int, np.ndarray]:
        """Copies that have begun a new episode out of turn since the last call, with its first observation [O]."""
        restarted, self._restarted = self._restarted, {}
        return restarted

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """See `LocalPool.reset`."""
        self._seeds = [old if new is None else new for old, new in zip(self._seeds, seeds, strict=True)]
        arguments = [(None if mask is None else mask[s], seeds[s]) for s in self._slices]
        observation = np.concatenate(self._call("reset", *arguments))
        for row in list(self._restarted):
            if mask is None or mask[row]:  # it begins an episode in turn, and not with what `_replace` saw
                del self._restarted[row]
        return observation

    def step(self, actions: np.ndarray) -> Transition:
        """See `LocalPool.step`."""
        self.begin_step(actions)
        return self.finish_step()

    def begin_step(self, actions: np.ndarray) -> None:
        """Lets the workers step while this process does something else; nothing but `finish_step` may come next."""
        self._begin("step", *[(actions[s],) for s in self._slices])

    def finish_step(self) -> Transition:
        """Waits for the step that `begin_step` has begun."""
        parts = self._finish()
        return Transition(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def get_state(self) -> list[dict[str, Any] | None]:
        """See `LocalPool.get_state`."""
        return [state for part in self._call("get_state", *[() for _ in self._slices]) for state in part]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """See `LocalPool.set_state`."""
        self._call("set_state", *[(states[s],) for s in self._slices])

    def close(self) -> None:
        """Ends the worker processes and waits for them."""
        for connection in self._connections:
            connection.close()  # a worker leaves its loop at the end of its pipe
        for process in self._processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._connections.clear()
        self._processes.clear()

    def _start(self, i: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from lit_mbrl.envs.pool import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._processes[i:] = [process, *self._processes[i + 1 :]]
        self._connections[i:] = [Connection(ours.detach()), *self._connections[i + 1 :]]

    def _call(self, method: str, *arguments: tuple[Any, ...]) -> list[Any]:
        """Calls `method` of every worker's `LocalPool`, all at once, with a tuple of arguments each."""
        self._begin(method, *arguments)
        return self._finish()

    def _begin(self, method: str, *arguments: tuple[Any, ...]) -> None:
        self._begun = method, arguments, [self._send(i, method, args) for i, args in enumerate(arguments)]

    def _finish(self) -> list[Any]:
        method, arguments, sent = self._begun
        answers = []
        for i, args in enumerate(arguments):
            answer = self._receive(i) if sent[i] else _DIED
            while answer is _DIED:
                if method not in ("step", "reset"):
                    raise self._death(i)
                self._replace(i)
                answer = self._receive(i) if self._send(i, method, args) else _DIED
            answers.append(answer)
        for answer in answers:  # only now that all are read, or the pipes would fall out of step
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _send(self, i: int, method: str, args: tuple[Any, ...]) -> bool:
        try:
            self._connections[i].send((method, args))
        except OSError:
            return False
        return True

    def _receive(self, i: int) -> Any:
        try:
            return self._connections[i].recv()
        except (EOFError, OSError):
            return _DIED

    def _replace(self, i: int) -> None:
        """Starts worker i again, with new episodes of other seeds in all of its copies."""
        death = self._death(i)
        if self._restarts == MAX_RESTARTS:
            raise death
        self._restarts += 1
        warnings.warn(
            f"{death}; restart {self._restarts} of at most {MAX_RESTARTS}, with new episodes",
            RuntimeWarning,
            stacklevel=2,
        )
        self._connections[i].close()
        self._start(i)
        part = self._slices[i]
        rows = range(part.start, part.stop)
        seeds = [(self._seeds[row] or 0) + 1_000_003 * self._restarts for row in rows]
        for method, args in (("__init__", (self._config, len(rows), part.start)), ("reset", (None, seeds))):
            answer = self._receive(i) if self._send(i, method, args) else _DIED
            if answer is _DIED:
                raise self._death(i)
            if isinstance(answer, BaseException):
                raise answer
        self._restarted |= dict(zip(rows, answer, strict=True))

    def _death(self, i: int) -> RunFailed:
        process = self._processes[i]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        return RunFailed(f"environment worker {i} (process {process.pid}) died with exit code {process.returncode}")


def serve(descriptor: int) -> None:
    """Body of a worker process: answers calls of `LocalPool`'s methods until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers in order
    pool = LocalPool.__new__(LocalPool)
    with Connection(descriptor) as connection:
        while True:
            try:
                method, args = connection.recv()
            except (EOFError, OSError):
                break
            try:
                answer = getattr(pool, method)(*args)
            except Exception as error:
                answer = _portable(error)
            connection.send(answer)
    pool.close()


def _portable(error: Exception) -> Exception:
    """The exception with the worker's traceback as a note; a RuntimeError with its text if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"an environment worker raised\n{text}")
    error.add_note(f"raised in an environment worker:\n{text}")
    return error
