"""Writes the report of an artefact: tables, figure, JSON and the page that shows them."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_mbrl.app.commands.paper.page import page
from lit_mbrl.app.commands.paper.plan import PaperRun
from lit_mbrl.app.commands.paper.progress import is_finished
from lit_mbrl.app.commands.paper.results import collect, left_out, only_reported
from lit_mbrl.app.commands.qualify.report import duration
from lit_mbrl.app.experiment import sources
from lit_mbrl.papers.artefact import Artefact, Budget
from lit_mbrl.reports.bars import draw_bars, make_bars
from lit_mbrl.reports.curves import Curve, make_curve, usable
from lit_mbrl.reports.figure import draw, save
from lit_mbrl.reports.runs import Group, read_run
from lit_mbrl.reports.table import numbers
from lit_mbrl.utils.errors import UsageError

HEADER = ("task", "variant", "seeds", "mean", "std", "IQM [95 %]", "better than {}", "paper", "env steps", "time")


def write_report(
    artefact: Artefact, budget: Budget, name: str, runs: Sequence[PaperRun], folder: Path, command: str
) -> tuple[list[list[str]], list[Path]]:
    """Writes all files of the report of the finished runs; none if there is no such run.

    Args:
        artefact: what it is about.
        budget: the part of the artefact's budget that was wanted.
        name: of the budget.
        runs: all that were planned.
        folder: of the report.
        command: that repeats it.

    Returns:
        The table, its header first, and the files, `index.html` first.
    """
    cells = collect(artefact, budget, runs)
    if not cells:
        return [], []
    folder.mkdir(parents=True, exist_ok=True)
    written = _draw(artefact, budget, runs, folder / "figure")
    content = {
        "artefact": artefact.name,
        "title": artefact.title,
        "source": artefact.source,
        "budget": name,
        "note": budget.note,
        "metric": artefact.metric,
        "statistic": "of each run the mean over the last tenth of its environment steps, its last evaluation at least",
        "command": command,
        "runs": {"planned": len(runs), "finished": sum(len(cell["seeds"]) for cell in cells)},
        "left_out": left_out(artefact, runs),
        "versions": sources.versions(),
        "processor": sources.processor(),
        "cells": cells,
    }
    rows = table_rows(artefact, cells, only_reported(artefact, budget))
    texts = {
        "results.json": json.dumps(_plain(content), indent=1) + "\n",
        "table.md": markdown(rows),
        "table.csv": _csv(cells),
        "table.tex": latex(rows),
        "index.html": page(content, rows, bool(written)),
    }
    for file, text in texts.items():
        (folder / file).write_text(text)
    return rows, [folder / "index.html", *(folder / file for file in texts if file != "index.html"), *written]


def table_rows(
    artefact: Artefact, cells: Sequence[dict[str, Any]], printed: Sequence[dict[str, Any]] = ()
) -> list[list[str]]:
    """The table as text, its header first; below the cells of each task those that only the paper has."""
    baseline = next((cell["label"] for cell in cells if cell["variant"] == artefact.baseline), "")
    columns = [name.format(baseline) for name in HEADER]
    rows = [columns]
    for task in dict.fromkeys(cell["task"] for cell in cells):
        rows += [_row(cell) for cell in cells if cell["task"] == task]
        rows += [_reported_row(cell) for cell in printed if cell["task"] == task]
    empty = [i for i, name in enumerate(columns) if i > 3 and all(row[i] in ("", "-") for row in rows[1:])]
    return [[text for i, text in enumerate(row) if i not in empty] for row in rows]


def _row(cell: dict[str, Any]) -> list[str]:
    bounds = cell["iqm_interval_95"] or ()
    mean, std, iqm, *limits = numbers(cell["mean"], cell["std"] or 0.0, cell["iqm"], *bounds)
    better = cell.get("improvement")
    chance = ""
    if better is not None:
        limit = better["interval_95"]
        chance = f"{better['probability']:.2f}" + (f" [{limit[0]:.2f}, {limit[1]:.2f}]" if limit else "")
    return [
        cell["task_label"],
        cell["label"],
        str(len(cell["seeds"])),
        mean,
        std if cell["std"] is not None else "-",
        f"{iqm} [{', '.join(limits)}]" if limits else iqm,
        chance,
        _printed(cell["reported"]),
        f"{cell['env_steps']:,}",
        duration(cell["seconds"]) if cell["seconds"] is not None else "-",
    ]


def _reported_row(cell: dict[str, Any]) -> list[str]:
    return [cell["task_label"], cell["label"], "", "", "", "", "", _printed(cell["reported"]), "", ""]


def _printed(reported: dict[str, float | None] | None) -> str:
    if reported is None:
        return ""
    mean, std = reported["mean"], reported["std"]
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular with booktabs rules."""
    header, *body = rows
    lines = [r"\begin{tabular}{ll" + "r" * (len(header) - 2) + "}", r"\toprule", _latex_row(header), r"\midrule"]
    lines += [_latex_row(row) for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(row: Sequence[str]) -> str:
    cells = [cell.replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$") for cell in row]
    return " & ".join(cells) + r" \\"


def _csv(cells: Sequence[dict[str, Any]]) -> str:
    """A row per seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "variant", "seed", "value"])
    for cell in cells:
        for seed, value in zip(cell["seeds"], cell["values"], strict=True):
            writer.writerow([cell["task"], cell["variant"], seed, repr(value)])
    return out.getvalue()


def _draw(artefact: Artefact, budget: Budget, runs: Sequence[PaperRun], out: Path) -> list[Path]:
    groups = []
    for cell in budget.cells():
        own = [read_run(run.folder) for run in runs if run.cell == cell and is_finished(run)]
        task, label = budget.tasks[cell.task].label or cell.task, budget.variants[cell.variant].label or cell.variant
        if own:
            groups.append(Group(label, task, own))

    def silent(line: str) -> None:
        """Runs without the metric are missing from the figure, as their caption's number of seeds says."""

    def having(axis: str) -> list[Group]:
        kept = [
            Group(group.label, group.task, [run for run in group.runs if usable(run, artefact.metric, axis, silent)])
            for group in groups
        ]
        return [group for group in kept if group.runs]

    if artefact.at:
        bars = [
            bar
            for group in having("step")
            for bar in make_bars(group, artefact.metric, artefact.at, artefact.estimate, silent)
        ]
        return save(draw_bars(bars, artefact.metric, artefact.estimate), out, pdf=True) if bars else []
    curves = {
        axis: [curve for group in having(axis) if (curve := _curve(group, artefact, axis)) is not None]
        for axis in artefact.axes
    }
    curves = {axis: lines for axis, lines in curves.items() if lines}
    return save(draw(curves, artefact.metric, artefact.estimate, each=True), out, pdf=True) if curves else []


def _curve(group: Group, artefact: Artefact, axis: str) -> Curve | None:
    """The curve of a group, None if its runs have no range in common."""
    try:
        return make_curve(group, artefact.metric, axis, artefact.estimate)
    except UsageError as error:
        print(f"not drawn: {error}", file=sys.stderr)
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
