"""The runs of an artefact, and which of its tasks, variants and seeds are wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lit_mbrl.app import CONF
from lit_mbrl.app.experiment.run import ExperimentRun, check_overrides, fingerprint
from lit_mbrl.papers.artefact import Artefact, Budget, Cell
from lit_mbrl.utils.errors import OptionError, UsageError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class PaperRun(ExperimentRun):
    """One seed of a variant on a task.

    Attributes:
        cell: variant and task.
    """

    cell: Cell


def choose_budget(artefact: Artefact, name: str) -> Budget:
    """The artefact's budget of that name.

    Raises:
        UsageError: if the artefact cannot be run yet.
        OptionError: if it has none of that name.
    """
    if artefact.missing:
        raise UsageError(f"{artefact.name}: not yet: {artefact.missing}")
    if name not in artefact.budgets:
        raise OptionError("budget", name, f"one of {', '.join(artefact.budgets)} for {artefact.name}")
    return artefact.budgets[name]


def cut(budget: Budget, tasks: str | None, variants: str | None, seeds: Sequence[int] | None) -> Budget:
    """The budget with some of its tasks and variants, and with other seeds.

    Raises:
        OptionError: for a task or a variant that it does not have.
    """
    return replace(
        budget,
        tasks=_some(budget.tasks, "tasks", tasks),
        variants=_some(budget.variants, "variants", variants),
        seeds=tuple(seeds) if seeds is not None else budget.seeds,
    )


def _some(parts: Mapping[str, T], option: str, wanted: str | None) -> dict[str, T]:
    if wanted is None:
        return dict(parts)
    names = wanted.split(",")
    for name in names:
        if name not in parts:
            raise OptionError(option, wanted, f"some of {', '.join(parts)}{did_you_mean(name, parts)}")
    return {name: part for name, part in parts.items() if name in names}


def plan(artefact: Artefact, budget: Budget, out: Path, overrides: Sequence[str]) -> list[PaperRun]:
    """All runs, seed by seed, so that the first results are about every cell.

    A folder's name has a part of the run's fingerprint: other options make other runs, and artefacts share equal ones.
    """
    check_overrides("paper", overrides)
    paper = artefact.name.partition("/")[0]
    cells = []
    for cell in budget.cells():
        configs, options = [CONF / f"{name}.yaml" for name in cell.configs], (*cell.options, *overrides)
        cells.append((cell, configs, options, fingerprint(configs, options, {})))
    return [
        PaperRun(
            name=f"{cell.task} {cell.variant} seed {seed}",
            configs=tuple(configs),
            options=options,
            seed=seed,
            folder=out / "runs" / paper / cell.task / cell.variant / f"seed_{seed}-{mark[:8]}",
            environment=dict(os.environ),
            shown_variables={},
            fingerprint=mark,
            cell=cell,
        )
        for seed in budget.seeds
        for cell, configs, options, mark in cells
    ]
