"""A pool of processes: so many at a time, each with its log, started by a launcher, stopped by one signal to all."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """One process to run.

    Attributes:
        name: for messages.
        command: program and arguments.
        log: file to which both output streams are appended.
        environment: all environment variables of the process.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Finished:
    """A job whose process has ended, with its exit code (-N: by signal N) and its wall-clock seconds."""

    job: Job
    exit_code: int
    seconds: float


class Task(Protocol):
    """A job that has been started."""

    def poll(self) -> int | None:
        """Returns its exit code (-N: by signal N; `LOST`: nobody knows), None while it runs."""

    def terminate(self) -> None:
        """Asks it to save and stop."""

    def kill(self) -> None:
        """Ends it with all that it has started."""

    def wait(self) -> None:
        """Returns when it has ended."""


class Launcher(Protocol):
    """Starts jobs somewhere."""

    def start(self, job: Job) -> Task:
        """Starts a job, whose log has been opened with its command."""


LOST = -1000  # exit code of a job whose machine has gone


@dataclass
class _Running:
    job: Job
    task: Task
    started: float


class _Process:
    """A process of this machine."""

    def __init__(self, job: Job) -> None:
        with job.log.open("ab") as log:
            self._process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=job.environment,
                start_new_session=True,
            )
        self.poll, self.terminate, self.wait = self._process.poll, self._process.terminate, self._process.wait

    def kill(self) -> None:
        """Kills the process with those that it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


class LocalLauncher:
    """Starts processes on this machine."""

    def start(self, job: Job) -> Task:
        """See `Launcher`."""
        return _Process(job)  # type: ignore[return-value]


class Pool:
    """Runs jobs in a few processes at a time; to be used as a context manager.

    After the first SIGINT, SIGTERM or SIGHUP no further job is started and every process gets SIGTERM, upon which runs
    save and stop; a second SIGINT kills them. Processes are sessions of their own, so that a terminal's Ctrl-C reaches
    the pool alone.

    Args:
        size: number of processes at a time.
        launcher: starts them; None: on this machine.

    Attributes:
        stopped: number of the signal that stopped the pool, None if none did.
    """

    def __init__(self, size: int, launcher: Launcher | None = None) -> None:
        self.size, self._launcher = size, launcher or LocalLauncher()
        self.stopped: int | None = None
        self._interrupted = False
        self._running: list[_Running] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Pool:
        if threading.current_thread() is threading.main_thread():
            # Under nohup the end of the terminal is no reason to stop.
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            heard = [number for number in _SIGNALS if not (ignored and number == signal.SIGHUP)]
            self._previous = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Only after an exception is there anything left.
        self._terminate()
        for running in self._running:
            running.task.wait()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """Yields each job as its process ends. A job is taken from `jobs` when there is a process free for it.

        `jobs` is asked again after each job that ends, so that it may have more then than before.
        """
        waiting = iter(jobs)
        asked = True
        while True:
            while asked and self.stopped is None and len(self._running) < self.size:
                job = next(waiting, None)
                if job is None:
                    asked = False
                else:
                    self._start(job)
            if not self._running:
                return
            ended = [(running, code) for running in self._running if (code := running.task.poll()) is not None]
            for running, code in ended:
                self._running.remove(running)
                yield Finished(running.job, code, time.monotonic() - running.started)
                asked = True
            if not ended:
                time.sleep(_POLL_SECONDS)

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            log.write(f"$ {shlex.join(job.command)}\n".encode())
        task = self._launcher.start(job)
        self._running.append(_Running(job, task, time.monotonic()))
        if self.stopped is not None:  # the signal came before this process was on the list
            task.terminate()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped is None:
            self.stopped = number
            self._terminate()
        elif number == signal.SIGINT and self._interrupted:
            for running in self._running:
                running.task.kill()
        self._interrupted = self._interrupted or number == signal.SIGINT

    def _terminate(self) -> None:
        for running in self._running:
            running.task.terminate()
