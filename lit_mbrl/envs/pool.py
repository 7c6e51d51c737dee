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
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from lit_mbrl.envs.guard import watched
from lit_mbrl.envs.local_pool import LocalPool
from lit_mbrl.envs.make import make_spec
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.transition import Transition
from lit_mbrl.utils.errors import TrainingError

MAX_RESTARTS = 3
_CLOSE_SECONDS = 5.0  # for all workers together to close their environments
_MARGIN = 10.0  # seconds beyond a worker's own limits, which it keeps by itself
_DIED = object()


class WorkerPool:
    """`count` copies spread over worker processes, at most one per CPU core. Same results as `LocalPool`, bit for bit.

    A worker is a fresh interpreter that imports this module and nothing else of the running program, so it needs no
    `if __name__ == "__main__"` and stays free of torch; an environment of your own has to be named with the module that
    registers it (`package.module:Id-v0`). A worker ends with its pipe, also when this process is killed. POSIX only.

    A worker that dies while its copies are stepped or reset is started again, `MAX_RESTARTS` times in all. Its copies
    begin new episodes, which `restarted` tells.

    Raises:
        TrainingError: if a worker process dies too often, or where it cannot be replaced: while it starts, and while
            states are read or set.
        EnvFailed: what an environment in a worker has raised, or that it does not return.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        self._config = config
        self._restarts = 0
        self._seeds: list[int | None] = [None] * count
        self._restarted: dict[int, np.ndarray] = {}
        self._begun: tuple[str, Sequence[tuple[Any, ...]], list[bool]] = ("", (), [])
        self.spec = make_spec(config)  # a wrong option is told here, before any process starts
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

    def step(self, actions: np.ndarray, mask: np.ndarray | None = None) -> Transition:
        """See `LocalPool.step`."""
        self.step_async(actions, mask)
        return self.step_wait()

    def step_async(self, actions: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Lets the workers step while this process does something else; nothing but `step_wait` may come next."""
        self._begin("step", *[(actions[s], None if mask is None else mask[s]) for s in self._slices])

    def step_wait(self) -> Transition:
        """Waits for the step that `step_async` has begun."""
        parts = self._finish()
        return Transition(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def episode_steps(self) -> list[int]:
        """See `LocalPool.episode_steps`."""
        return [steps for part in self._call("episode_steps", *[() for _ in self._slices]) for steps in part]

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
        deadline = time.monotonic() + _CLOSE_SECONDS
        for process in self._processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
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
        limit = self._config.timeout
        copies = max(part.stop - part.start for part in self._slices)
        seconds = None if limit is None else limit * copies + _MARGIN
        return watched(self._answers, self._config.name, lambda: "a worker process", seconds)

    def _answers(self) -> list[Any]:
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

    def _death(self, i: int) -> TrainingError:
        process = self._processes[i]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        return TrainingError(f"environment worker {i} (process {process.pid}) died with exit code {process.returncode}")


def check_in_worker(config: EnvConfig) -> tuple[str, ...]:
    """`check.check_env` in a process of its own.

    Raises:
        TrainingError: if the process dies of it.
    """
    pool = WorkerPool(replace(config, num_envs=1), 1)
    try:
        return pool._call("check", ())[0]
    finally:
        pool.close()


def serve(descriptor: int) -> None:
    """Body of a worker process: answers calls of `LocalPool`'s methods until the pipe ends."""
    # Ctrl-C, and what a scheduler sends to all processes of a job, are for the parent, which ends its workers in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
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
