"""Progress of the runs: a line for each that ends, with the time that the others will take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lit_mbrl.app.commands.qualify.plan import PlannedRun
from lit_mbrl.app.commands.qualify.report import duration
from lit_mbrl.app.commands.qualify.results import read_evaluations
from lit_mbrl.app.commands.qualify.status import Status
from lit_mbrl.utils.pool import Finished, Job


class Progress:
    """Counts the runs as they end.

    Args:
        status: what is to be run.
        size: number of runs at a time.

    Attributes:
        done: number of finished runs, earlier ones included.
        failed: names of the runs that failed, and why.
    """

    def __init__(self, status: Status, size: int) -> None:
        self._waiting = {run.name: run for run in status.todo}
        self._size = size
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._total = len(status.todo) + len(status.finished)
        self.done = len(status.finished)
        self.failed: dict[str, str] = {}

    def jobs(self) -> Iterator[Job]:
        """The processes, each made when its turn comes."""
        for run in list(self._waiting.values()):
            if run.unchanged():
                yield run.job()
            else:
                self._fail(run, f"{run.goal.file} or base.yaml has changed since the command began")

    def add(self, finished: Finished, stopped: bool) -> None:
        """Notes and prints how a run ended.

        Args:
            finished: its process.
            stopped: whether the runs have been told to stop; then one that is not finished has not failed.
        """
        run = self._waiting[finished.job.name]
        evaluations = read_evaluations(run.folder, run.goal.threshold)
        if evaluations is not None and evaluations.finished:
            del self._waiting[run.name]
            self.done += 1
            self._seconds.setdefault(_kind(run), []).append(finished.seconds)
            verdict = "ok" if evaluations.reached else f"short of {evaluations.threshold:g}"
            self._say(f"{run.name}: {evaluations.final:.1f} {verdict}, {duration(evaluations.seconds)}")
        elif not stopped:
            self._fail(run, f"exit code {finished.exit_code}, {_last_line(run.log)}")

    def _fail(self, run: PlannedRun, why: str) -> None:
        del self._waiting[run.name]
        self.failed[run.name] = f"{why} (log: {run.log})"
        self._say(f"{run.name}: failed, log: {run.log}")

    def _say(self, line: str) -> None:
        position = f"{self.done + len(self.failed)}/{self._total}"
        left = self._left()
        print(f"[{position}{f', {duration(left)} left' if left else ''}] {line}", flush=True)

    def _left(self) -> float:
        """Estimated seconds until all runs have ended, as if none had begun; 0 if nothing is known."""
        known = {kind: sum(seconds) / len(seconds) for kind, seconds in self._seconds.items()}
        if not known or not self._waiting:
            return 0.0
        average = sum(known.values()) / len(known)
        seconds = sum(known.get(_kind(run), average) for run in self._waiting.values())
        return seconds / min(self._size, len(self._waiting))


def _kind(run: PlannedRun) -> tuple[str, str]:
    """Runs of a kind take about the same time."""
    return run.goal.config, run.path.name


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()  # the first one is the command
