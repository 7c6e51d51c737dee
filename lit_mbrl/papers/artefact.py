"""Declares a table or a figure of a paper: which configs are run on which tasks with which seeds, and what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

BUDGETS = ("smoke", "laptop", "paper")


@dataclass(frozen=True)
class Part:
    """What a task or a variant adds to a run.

    Attributes:
        config: config file in `conf/`, without `.yaml`; empty: the other part has it. `{task}` stands for the name of
            the cell's task. Of two, the variant's comes last, which is what holds.
        options: further options of `fit`, as `--model.horizon=2`.
        label: as the paper has it; empty: the name.
    """

    config: str = ""
    options: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """One variant on one task: what several seeds are run of.

    Attributes:
        task: name of the task.
        variant: name of the variant.
        configs: config files in `conf/`, without `.yaml`.
        options: further options of `fit`.
    """

    task: str
    variant: str
    configs: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """The runs of an artefact at one size.

    Attributes:
        tasks: by name, in the order of the columns or panels.
        variants: by name, in the order of the rows or curves.
        seeds: of each cell.
        options: of every run, before those of its variant and its task.
        note: in what these runs differ from the paper's.
        reported: whether the paper's numbers may stand beside these: tasks, steps and metric are the same.
    """

    tasks: Mapping[str, Part]
    variants: Mapping[str, Part]
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()
    note: str = ""
    reported: bool = False

    def cells(self) -> Iterator[Cell]:
        """All variants on all tasks, task by task."""
        for task, of_task in self.tasks.items():
            for variant, of_variant in self.variants.items():
                configs = tuple(part.config.format(task=task) for part in (of_task, of_variant) if part.config)
                yield Cell(task, variant, configs, (*self.options, *of_variant.options, *of_task.options))


@dataclass(frozen=True)
class Artefact:
    """A table or a figure.

    Attributes:
        name: `<paper>/<artefact>`.
        title: what it shows.
        source: where it is printed.
        budgets: by name, some of `BUDGETS`; empty: not yet, see `missing`.
        baseline: variant that the others are compared with.
        metric: column of `metrics.csv`.
        lower_is_better: of the metric.
        axes: columns that curves are drawn against.
        at: environment steps of bars; empty: curves.
        estimate: `"mean"` or `"iqm"`, of the figure.
        reported: the paper's mean and standard deviation (None: not printed), by variant and task.
        missing: why there is no run of it yet.
    """

    name: str
    title: str
    source: str
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    baseline: str = ""
    metric: str = "eval/return"
    lower_is_better: bool = False
    axes: Sequence[str] = ("step",)
    at: tuple[int, ...] = ()
    estimate: Literal["mean", "iqm"] = "mean"
    reported: Mapping[str, Mapping[str, tuple[float, float | None]]] = field(default_factory=dict)
    missing: str = ""

    def __post_init__(self) -> None:
        unknown = set(self.budgets) - set(BUDGETS)
        assert not unknown and bool(self.budgets) != bool(self.missing), self.name
        for budget in self.budgets.values():
            assert not self.baseline or self.baseline in budget.variants, self.name


def env(name: str, **options: object) -> tuple[str, ...]:
    """The options of a task by its environment's name, and others of `data.env`."""
    return (f"--data.env.name={name}", *(f"--data.env.{key}={value}" for key, value in options.items()))


def reported(tasks: Sequence[str], table: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Reads a printed table: a line per variant, its name and `mean/standard deviation` of each task."""
    rows: dict[str, dict[str, tuple[float, float | None]]] = {}
    for line in table.strip().splitlines():
        variant, *cells = line.split()
        pairs = [cell.split("/") for cell in cells]
        rows[variant] = {task: (float(mean), float(std)) for task, (mean, std) in zip(tasks, pairs, strict=True)}
    return rows
