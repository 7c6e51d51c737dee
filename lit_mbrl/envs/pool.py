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
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.make import describe, make_gym, spec_of
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.state import get_state, set_state


class Transition(NamedTuple):
    """One step of n copies: observation [n, O] float32, reward [n, 1] float32, terminated and truncated [n, 1] bool."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class LocalPool:
    """`count` copies of an environment in this process."""

    def __init__(self, config: EnvConfig, count: int) -> None:
        self._envs: list[gym.Env] = []
        try:
            for _ in range(count):
                self._envs.append(make_gym(config.name, max_episode_steps=config.max_episode_steps, **config.kwargs))
            self.spec = spec_of(self._envs[0], config.name)
        except BaseException:
            self.close()
            raise
        self._first_action = int(self._envs[0].action_space.start) if self.spec.discrete else 0
        self._observation_shape = (count, self.spec.observation_dim)
        self._flag_shape = (count, 1)

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """Starts new episodes where `mask` [n] is True (everywhere if None); a seed that is not None reseeds that copy.

        Returns:
            Observations [n, O]; zero for the copies that were not reset.
        """
        observation = np.zeros(self._observation_shape, np.float32)
        for i, env in enumerate(self._envs):
            if mask is None or mask[i]:
                observation[i] = env.reset(seed=seeds[i])[0]
        return observation

    def step(self, actions: np.ndarray) -> Transition:
        """Steps every copy with its row of `actions`, [n, A] or [n] indices."""
        out = Transition(
            np.empty(self._observation_shape, np.float32),
            np.empty(self._flag_shape, np.float32),
            np.empty(self._flag_shape, np.bool_),
            np.empty(self._flag_shape, np.bool_),
        )
        observation, reward, terminated, truncated = out
        for i, env in enumerate(self._envs):
            action = int(actions[i]) + self._first_action if self.spec.discrete else actions[i]
            observation[i], reward[i, 0], terminated[i, 0], truncated[i, 0], _ = env.step(action)
        return out

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

    Raises:
        RuntimeError: if a worker process dies. An exception raised by an environment is raised here as it is.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        self.spec = describe(config)  # a wrong option is told here, before any process starts
        processes = min(count, os.cpu_count() or 1)
        bounds = [count * i // processes for i in range(processes + 1)]
        self._slices = [slice(first, last) for first, last in itertools.pairwise(bounds)]
        self._processes: list[subprocess.Popen] = []
        self._connections: list[Connection] = []
        try:
            for _ in range(processes):
                self._start()
            self._call("__init__", *[(config, part.stop - part.start) for part in self._slices])
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes]

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """See `LocalPool.reset`."""
        return np.concatenate(
            self._call("reset", *[(None if mask is None else mask[s], seeds[s]) for s in self._slices])
        )

    def step(self, actions: np.ndarray) -> Transition:
        """See `LocalPool.step`."""
        parts = self._call("step", *[(actions[s],) for s in self._slices])
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

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from lit_mbrl.envs.pool import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._processes.append(process)
        self._connections.append(Connection(ours.detach()))

    def _call(self, method: str, *arguments: tuple[Any, ...]) -> list[Any]:
        """Calls `method` of every worker's `LocalPool`, all at once, with a tuple of arguments each."""
        for i, args in enumerate(arguments):
            try:
                self._connections[i].send((method, args))
            except OSError as error:
                raise self._death(i) from error
        answers = []
        for i in range(len(arguments)):
            try:
                answers.append(self._connections[i].recv())
            except (EOFError, OSError) as error:
                raise self._death(i) from error
        for answer in answers:  # only now that all are read, or the pipes would fall out of step
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _death(self, i: int) -> RuntimeError:
        process = self._processes[i]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        return RuntimeError(f"environment worker {i} (process {process.pid}) died with exit code {process.returncode}")


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
