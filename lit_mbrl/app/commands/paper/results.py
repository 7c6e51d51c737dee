"""The results of an artefact: per cell the values of its seeds, their statistics, and what the paper reports."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_mbrl.app.commands.paper.plan import PaperRun
from lit_mbrl.app.commands.paper.progress import is_finished
from lit_mbrl.papers.artefact import Artefact, Budget
from lit_mbrl.reports.curves import final_values
from lit_mbrl.reports.runs import Run, read_run
from lit_mbrl.reports.statistics import ESTIMATES, estimate, improvement, interval

_PLACE = "--trainer.default_root_dir="  # where the run lies is nobody else's concern
_COSTS = {"policy_updates": "time/policy_updates", "seconds": "time/seconds"}


def collect(artefact: Artefact, budget: Budget, runs: Sequence[PaperRun]) -> list[dict[str, Any]]:
    """The results of every cell that has a finished run, in the order of the budget.

    Returns:
        Of each `task`, `variant`, `label`, `seeds` with `values`, `mean`, `std` (n - 1 in the denominator), `iqm`,
        their 95 % intervals, `improvement` (probability that a run is better than one of the baseline, with its
        interval), `env_steps`, medians of `policy_updates` and `seconds`, `commits`, and `reported`, the paper's mean
        and standard deviation.
    """
    found: dict[tuple[str, str], tuple[list[PaperRun], list[Run], np.ndarray]] = {}
    for cell in budget.cells():
        own = [run for run in runs if run.cell == cell and is_finished(run)]
        read = [read_run(run.folder) for run in own]
        kept = [i for i, each in enumerate(read) if len(each.series(artefact.metric)[0])]
        own, read = [own[i] for i in kept], [read[i] for i in kept]
        if own:
            found[cell.task, cell.variant] = own, read, final_values(read, artefact.metric)[0]
    return [
        _cell(artefact, budget, task, variant, own, read, values, found.get((task, artefact.baseline)))
        for (task, variant), (own, read, values) in found.items()
    ]


def left_out(artefact: Artefact, runs: Sequence[PaperRun]) -> list[str]:
    """Names of the finished runs that have not logged the artefact's metric."""
    finished = [run for run in runs if is_finished(run)]
    return [run.name for run in finished if not len(read_run(run.folder).series(artefact.metric)[0])]


def _cell(
    artefact: Artefact,
    budget: Budget,
    task: str,
    variant: str,
    own: Sequence[PaperRun],
    read: Sequence[Run],
    values: np.ndarray,
    baseline: tuple[list[PaperRun], list[Run], np.ndarray] | None,
) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "task": task,
        "variant": variant,
        "task_label": budget.tasks[task].label or task,
        "label": budget.variants[variant].label or variant,
        "seeds": [run.seed for run in own],
        "values": values.tolist(),
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
    }
    for kind in ESTIMATES:
        bounds = interval(values, kind)
        cell[kind] = float(estimate(values, kind))
        cell[f"{kind}_interval_95"] = None if bounds is None else [float(bound) for bound in bounds]
    if baseline is not None and variant != artefact.baseline:
        sign = -1.0 if artefact.lower_is_better else 1.0
        cell["improvement"] = improvement(sign * values, sign * baseline[2])
    cell["env_steps"] = min(run.env_steps for run in read)
    for name, column in _COSTS.items():
        last = [run.series(column)[1][-1] for run in read if len(run.series(column)[1])]
        cell[name] = float(np.median(last)) if last else None
    cell["commits"] = sorted({name for run in own for name in (run.read_record() or {}).get("commits", ())})
    cell["command"] = shlex.join(["python", *(word for word in own[0].command(False) if not word.startswith(_PLACE))])
    printed = artefact.reported.get(variant, {}).get(task) if budget.reported else None
    cell["reported"] = None if printed is None else {"mean": printed[0], "std": printed[1]}
    return cell


def only_reported(artefact: Artefact, budget: Budget) -> list[dict[str, Any]]:
    """The paper's numbers of variants that have no run here, on the budget's tasks."""
    if not budget.reported:
        return []
    return [
        {
            "task": task,
            "variant": variant,
            "task_label": budget.tasks[task].label or task,
            "label": variant,
            "mean": math.nan,
            "reported": {"mean": mean, "std": std},
        }
        for variant, row in artefact.reported.items()
        if variant not in budget.variants
        for task, (mean, std) in row.items()
        if task in budget.tasks
    ]
