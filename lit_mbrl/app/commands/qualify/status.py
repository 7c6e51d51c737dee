"""Finds the runs that are there already, and whether they may be used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from lit_mbrl.app.commands.qualify.plan import PlannedRun
from lit_mbrl.app.commands.qualify.results import read_evaluations
from lit_mbrl.app.experiment import sources
from lit_mbrl.utils.errors import UsageError


@dataclass
class Status:
    """The planned runs by what is to be done.

    Attributes:
        finished: nothing.
        todo: run, or go on with, them.
        superseded: put them aside and run them anew, since they are of other sources; a part of `todo`.
    """

    finished: list[PlannedRun] = field(default_factory=list)
    todo: list[PlannedRun] = field(default_factory=list)
    superseded: list[PlannedRun] = field(default_factory=list)

    @classmethod
    def of(cls, runs: Sequence[PlannedRun], reuse: bool) -> Status:
        """Looks at the folders, and warns of runs of other sources.

        Args:
            runs: all of the command.
            reuse: whether runs of other sources are as good as those of the present ones.

        Raises:
            UsageError: if a folder holds a run of other options, or another program's files.
        """
        status, commit = cls(), sources.commit()
        for run in runs:
            record = run.read_record()
            if record is None and run.folder.exists():
                raise UsageError(
                    f"{run.folder}: expected the folder of a run of qualify, or none; choose another --out"
                )
            if record is not None and record["fingerprint"] != run.fingerprint:
                raise UsageError(
                    f"{run.folder}: this run was made with another config or other options; choose another --out"
                )
            if record is not None and record["commits"] != [commit] and not reuse:
                status.superseded.append(run)
                status.todo.append(run)
                continue
            evaluations = read_evaluations(run.folder, run.goal.threshold)
            (status.finished if evaluations is not None and evaluations.finished else status.todo).append(run)
        if count := len(status.superseded):
            print(
                f"warning: {count} {'run is' if count == 1 else 'runs are'} not of the present sources "
                f"({sources.short(commit)}) and will be put aside and repeated; --reuse keeps them",
                file=sys.stderr,
            )
        return status

    def _resumed(self, run: PlannedRun) -> bool:
        return run not in self.superseded and run.resumable

    def describe(self) -> str:
        """The number of runs, and what is to be done with them."""
        total, resumed = len(self.finished) + len(self.todo), sum(map(self._resumed, self.todo))
        runs = "run" if total == 1 else "runs"
        return f"{total} {runs}: {len(self.finished)} finished, {len(self.todo)} to run, {resumed} of them to resume"

    def command_lines(self) -> list[str]:
        """The commands of the runs that are not finished."""
        return [run.command_line(self._resumed(run)) for run in self.todo]
