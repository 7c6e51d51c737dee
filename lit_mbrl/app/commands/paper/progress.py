"""Progress over all runs: a line for each that ends, and now and then one for those that are running."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lit_mbrl.app.commands.paper.plan import PaperRun
from lit_mbrl.app.commands.qualify.report import duration
from lit_mbrl.app.commands.qualify.results import Evaluations, read_evaluations
from lit_mbrl.utils.pool import LOST, Finished, Job

_ANY = float("-inf")  # no threshold
_MAX_LOST = 3  # times that a run may lose its machine


def evaluations_of(run: PaperRun) -> Evaluations | None:
    """The evaluations of a run so far, None if there are none."""
    return read_evaluations(run.folder, _ANY)


def is_finished(run: PaperRun) -> bool:
    """Returns whether the last evaluation of a run has been made."""
    found = evaluations_of(run)
    return found is not None and found.finished


class _Jobs(Iterator[Job]):
    """An iterator that may have more after it had none."""

    def __init__(self, following: Callable[[], Job | None]) -> None:
        self._following = following

    def __next__(self) -> Job:
        job = self._following()
        if job is None:
            raise StopIteration
        return job


class Progress:
    """Counts the runs as they end; its context keeps other processes from making them at the same time.

    Args:
        waiting: what is to be run.
        done: number of finished runs.
        size: number of runs at a time.
        costs: estimated seconds of a run by task and variant.

    Attributes:
        done: number of finished runs, earlier ones included.
        failed: names of the runs that failed, and why.
        elsewhere: names of the runs that another process of the command is making.
    """

    def __init__(
        self, waiting: Sequence[PaperRun], done: int, size: int, costs: Mapping[tuple[str, str], float]
    ) -> None:
        self._waiting = {run.name: run for run in waiting}
        self._queue = deque(waiting)
        self._lost: dict[str, int] = {}
        self._held: dict[str, IO[str]] = {}
        self._total, self._size = len(waiting) + done, size
        self._costs = dict(costs)
        self._measured: dict[tuple[str, str], list[float]] = {}
        self._started: dict[str, float] = {}
        self.done = done
        self.failed: dict[str, str] = {}
        self.elsewhere: list[str] = []

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *raised: object) -> None:
        for lock in self._held.values():
            lock.close()

    def jobs(self) -> Iterator[Job]:
        """The processes, each made when its turn comes; a run that has lost its machine comes once more."""
        return _Jobs(self._next_job)

    def _next_job(self) -> Job | None:
        while self._queue:
            run = self._queue.popleft()
            if not self._take(run):
                continue
            if run.unchanged():
                self._started[run.name] = time.monotonic()
                return run.job()
            self._fail(run, "a config has changed since the command began")
        return None

    def _take(self, run: PaperRun) -> bool:
        """Returns whether a run is still to be made here: another process may be making it, or have made it."""
        if run.name in self._held:  # it has lost its machine
            return True
        lock = run.hold()
        if lock is None:
            del self._waiting[run.name]
            self.elsewhere.append(run.name)
            self._say(f"{run.name}: another process is making it")
            return False
        if is_finished(run):
            lock.close()
            del self._waiting[run.name]
            self.done += 1
            self._say(f"{run.name}: another process has made it")
            return False
        self._held[run.name] = lock
        return True

    def add(self, finished: Finished, stopped: bool) -> None:
        """Notes and prints how a run ended.

        Args:
            finished: its process.
            stopped: whether the runs have been told to stop; then one that is not finished has not failed.
        """
        run = self._waiting[finished.job.name]
        self._started.pop(run.name, None)
        if is_finished(run):
            del self._waiting[run.name]
            self.done += 1
            self._measured.setdefault(_kind(run), []).append(finished.seconds)
            self._say(f"{run.name}: {_last_return(run)}, {duration(finished.seconds)}")
        elif not stopped and finished.exit_code == LOST and self._lost.get(run.name, 0) < _MAX_LOST:
            self._lost[run.name] = self._lost.get(run.name, 0) + 1
            self._queue.append(run)
            self._say(f"{run.name}: its machine has gone, it will go on elsewhere")
        elif not stopped:
            self._fail(run, f"exit code {finished.exit_code}, {_last_line(run.log)}")
        if run.name not in self._waiting or stopped:
            self._held.pop(run.name).close()
        if not stopped and self._started:
            self._say(f"running: {'; '.join(self._describe(self._waiting[name]) for name in self._started)}")

    def _describe(self, run: PaperRun) -> str:
        found = evaluations_of(run)
        if found is None:
            return run.name
        return f"{run.name} at {found.env_steps[-1]:,} of {found.total_frames:,} steps, {_last_return(run)}"

    def _fail(self, run: PaperRun, why: str) -> None:
        del self._waiting[run.name]
        self.failed[run.name] = f"{why} (log: {run.log})"
        self._say(f"{run.name}: failed, log: {run.log}")

    def _say(self, line: str) -> None:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        left = self.seconds_left()
        print(f"[{self.done}/{self._total}{failed}{f', {duration(left)} left' if left else ''}] {line}", flush=True)

    def seconds_left(self) -> float:
        """Estimated seconds until all runs have ended; 0 if nothing is known."""
        known = self._costs | {kind: sum(seconds) / len(seconds) for kind, seconds in self._measured.items()}
        known = {kind: seconds for kind, seconds in known.items() if seconds == seconds}
        if not known or not self._waiting:
            return 0.0
        average, now = sum(known.values()) / len(known), time.monotonic()
        left = sum(
            max(known.get(_kind(run), average) - (now - self._started.get(run.name, now)), 0.0)
            for run in self._waiting.values()
        )
        return left / min(self._size, len(self._waiting))


def _last_return(run: PaperRun) -> str:
    found = evaluations_of(run)
    return "no evaluation" if found is None else f"return {found.final:.1f}"


def _kind(run: PaperRun) -> tuple[str, str]:
    return run.cell.task, run.cell.variant


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()  # the first one is the command
