"""Estimates time and disk space of runs that have not been made, from the first training steps of one of each kind."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lit_mbrl.app.commands.paper.plan import PaperRun
from lit_mbrl.app.experiment.run import with_sources
from lit_mbrl.reports.runs import read_run
from lit_mbrl.utils.errors import UsageError
from lit_mbrl.utils.yaml import load_yaml

_SECONDS = 15.0  # of training steps that are timed
_PATIENCE = 180.0  # for the first ones
_POLL = 0.5


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes:
        seconds: of the clock; NaN: unknown.
        disk: bytes of its files; NaN: unknown.
    """

    seconds: float
    disk: float


UNKNOWN = Cost(math.nan, math.nan)


def disk_of(run: PaperRun) -> float:
    """Bytes of the files of a run."""
    return float(sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()))


class CostError(UsageError):
    """A run that failed while it was timed."""


def measure(run: PaperRun) -> Cost:
    """What a run takes, from its first training steps in a folder that is then removed.

    Metrics are logged often for that, so the time is a little too long; evaluations that come later are not in it.

    Raises:
        CostError: if the run fails.
    """
    with tempfile.TemporaryDirectory(prefix="lit_mbrl_cost_") as scratch:
        trial = replace(run, folder=Path(scratch) / "run")
        command = [sys.executable, *trial.command(False), "--trainer.log_every_n_steps=10"]
        log = Path(scratch) / "log"
        started = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=with_sources(run.environment),
                start_new_session=True,
            )
        try:
            while process.poll() is None and time.monotonic() - started < _PATIENCE:
                time.sleep(_POLL)
                points = _points(trial.folder)
                if points and points[-1][1] - points[0][1] >= _SECONDS:
                    break
            elapsed = time.monotonic() - started
            if process.poll() not in (None, 0):
                last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
                raise CostError(f"{run.name} fails: {' '.join(last)}")
            if process.returncode == 0:  # so short that it is over
                return Cost(elapsed, disk_of(trial))
            seconds = _extrapolate(_points(trial.folder), _frames(trial.folder), elapsed)
            return Cost(seconds, _files(log.read_text(errors="replace")))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _points(folder: Path) -> list[tuple[float, float]]:
    """Environment steps and seconds of training of every row so far."""
    try:
        steps, seconds = read_run(folder).series("time/seconds")
    except UsageError:
        return []  # it has not come so far
    return list(zip(steps.tolist(), seconds.tolist(), strict=True))


def _files(printed: str) -> float:
    """Bytes of two checkpoints, of which the last has the replay, by what a run prints at its start."""
    parameters = re.search(r"([\d,]+) parameters,", printed)
    replays = re.findall(r"([\d,.]+) MB in \S+ when full", printed)
    if parameters is None:
        return math.nan
    weights = 4 * int(parameters[1].replace(",", ""))
    return 2 * 3 * weights + 1e6 * sum(float(size.replace(",", "")) for size in replays)  # with Adam's two moments


def _frames(folder: Path) -> int:
    config = load_yaml((folder / "config.yaml").read_text(), "config", folder / "config.yaml")
    return int(config["data"]["init_args"]["total_frames"])


def _extrapolate(points: Sequence[tuple[float, float]], frames: int, elapsed: float) -> float:
    """Seconds of a whole run: those before the timed steps, and the others at their rate; NaN if none were timed."""
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return float("nan")
    (first, start), (last, end) = points[0], points[-1]
    before = max(elapsed - (end - start), 0.0)
    return before + (frames - first) * (end - start) / (last - first)


def kinds(runs: Iterable[PaperRun]) -> dict[tuple[str, str], list[PaperRun]]:
    """Runs that take about the same time: those of a cell."""
    found: dict[tuple[str, str], list[PaperRun]] = {}
    for run in runs:
        found.setdefault((run.cell.task, run.cell.variant), []).append(run)
    return found
