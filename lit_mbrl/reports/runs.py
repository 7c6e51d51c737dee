"""Run folders: where they are, what they logged, and what tells one from another."""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_mbrl.utils.errors import UsageError, did_you_mean, printable
from lit_mbrl.utils.yaml import load_yaml

# How long a run goes and how it is watched does not make it another experiment.
_NOT_THE_EXPERIMENT = {
    "data.env.name",
    "data.env.workers",
    "data.total_frames",
    "data.epoch_frames",
    "data.eval_episodes",
    "data.storage",
}


@dataclass(frozen=True)
class Run:
    """One run: one seed of one algorithm on one task.

    Attributes:
        folder: with `metrics.csv` and `config.yaml`.
        algorithm: class name.
        task: name of the environment.
        seed: as configured; the folder's name if the run chose its own.
        options: every option that may tell two experiments with this algorithm on this task apart, as text.
        rows: the metrics, a dict of text per row; an empty text where a row lacks a metric.
        eval_episodes: episodes of an evaluation.
    """

    folder: Path
    algorithm: str
    task: str
    seed: str
    options: dict[str, str]
    rows: list[dict[str, str]]
    eval_episodes: int = 1

    @property
    def columns(self) -> list[str]:
        """Names of everything that was logged."""
        return list(self.rows[0]) if self.rows else []

    @property
    def env_steps(self) -> int:
        """Environment steps at the last row, 0 if there is none."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def series(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Environment steps and values `[T]` of the rows that have a column, the last row of each step; maybe empty."""
        found = {int(row["step"]): float(row[column]) for row in self.rows if row.get(column)}
        return np.array(list(found), float), np.array(list(found.values()), float)


def find_runs(arguments: Iterable[str]) -> list[Path]:
    """The folders with a `metrics.csv`, each once, that are named, lie below a named folder or match a pattern.

    Raises:
        UsageError: if an argument leads to none.
    """
    folders: dict[Path, Path] = {}
    for argument in arguments:
        paths = [Path(argument)] if Path(argument).is_dir() else map(Path, sorted(glob.glob(argument, recursive=True)))
        found = [folder for path in paths if path.is_dir() for folder in _below(path)]
        if not found:
            raise UsageError(
                f"{argument}: expected a run folder, a folder of runs or a pattern; no metrics.csv is there"
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def _below(folder: Path) -> list[Path]:
    if (folder / "metrics.csv").is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob("metrics.csv") if path.with_name("config.yaml").is_file())


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        UsageError: if a file is missing or is another program's.
    """
    config_path, table = folder / "config.yaml", folder / "metrics.csv"
    try:
        config = load_yaml(config_path.read_text(), "config", config_path)
        algorithm = printable(config["model"]["class_path"].rpartition(".")[2])
        task = printable(str(config["data"]["init_args"]["env"]["name"]))
        episodes = int(config["data"]["init_args"].get("eval_episodes", 1))
    except OSError as error:
        raise UsageError(
            f"{folder}: expected a run folder with metrics.csv and config.yaml ({error.strerror})"
        ) from error
    except (UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{config_path}: expected the config.yaml of a run, with model and data.env.name") from error
    seed = config.get("seed_everything")
    chosen = str(seed) if isinstance(seed, int) and not isinstance(seed, bool) else folder.name
    return Run(folder, algorithm, task, chosen, dict(_options(config)), _read_table(table), episodes)


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            # A run that is being written, or was killed, may end with half a line.
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        for row in rows:
            int(row["step"])
            for value in filter(None, row.values()):
                float(value)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: expected the metrics.csv of a run, with a column step and numbers") from error
    return rows


def _options(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for section in ("model", "data"):
        for name, value in _flatten(config[section].get("init_args") or {}, f"{section}."):
            if name not in _NOT_THE_EXPERIMENT:
                yield name, value
    trainer = config.get("trainer") or {}
    yield "trainer.precision", _text(trainer.get("precision"))
    for callback in trainer.get("callbacks") or []:
        name = callback["class_path"].rpartition(".")[2]
        yield from _flatten(callback.get("init_args") or {}, f"{name}.")


def _flatten(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), _text(value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return printable(str(value).replace(" ", ""))


def by_panel(run: Run, panels: str) -> Run:
    """The run with what tells panels apart in its task: `task`, `algorithm`, or an option, which its label then lacks.

    Raises:
        UsageError: if the run has no such option.
    """
    if panels == "task":
        return run
    if panels == "algorithm":
        return replace(run, task=f"{run.task}, {run.algorithm}")
    if panels not in run.options:
        hint = did_you_mean(panels, run.options)
        raise UsageError(f"--panels={panels}: expected task, algorithm or an option of {run.folder}/config.yaml{hint}")
    others = {name: value for name, value in run.options.items() if name != panels}
    last = panels.rpartition(".")[2]
    return replace(run, task=f"{run.task}, {last}={run.options[panels]}", options=others)


# ---------------------------------------------------------------------- groups
@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: the algorithm, and the options in which it differs from its other groups: `SACSVG horizon=2`.
        task: name of the environment.
        runs: one per seed.
    """

    label: str
    task: str
    runs: list[Run]


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[Run]]:
    """Groups by task, algorithm and the options that differ among an algorithm's runs on the same task.

    Returns:
        Groups, sorted by task and label; and the runs left out, because another run of the same group and seed (an
        earlier try, say) went further.
    """
    telling: dict[str, set[str]] = {}
    for algorithm, task in {(run.algorithm, run.task) for run in runs}:
        peers = [run.options for run in runs if (run.algorithm, run.task) == (algorithm, task)]
        names = {name for options in peers for name in options}
        telling.setdefault(algorithm, set()).update(
            name for name in names if len({options.get(name) for options in peers}) > 1
        )
    seeds: dict[tuple[str, str], dict[str, Run]] = {}
    left_out = []
    for run in sorted(runs, key=lambda run: run.env_steps):
        group = seeds.setdefault((run.task, _label(run, telling[run.algorithm])), {})
        if run.seed in group:
            left_out.append(group[run.seed])
        group[run.seed] = run
    groups = [
        Group(label, task, sorted(group.values(), key=lambda run: natural(run.seed)))
        for (task, label), group in seeds.items()
    ]
    return sorted(groups, key=lambda group: (natural(group.task), natural(group.label))), left_out


def _label(run: Run, telling: set[str]) -> str:
    short = [name.rpartition(".")[2] for name in telling]
    parts = []
    for name in sorted(telling & run.options.keys()):
        last = name.rpartition(".")[2]
        parts.append(f"{last if short.count(last) == 1 else name}={run.options[name]}")
    return " ".join([run.algorithm, *parts])


def natural(text: str) -> list[str | int]:
    """A sorting key under which 10 comes after 2."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
