"""One value per group at chosen environment steps, as bars: figure 4 of "On-Policy Maximum Entropy Deep RL"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lit_mbrl.reports.curves import Estimate
from lit_mbrl.reports.figure import COLOURS, NAMES, RC
from lit_mbrl.reports.runs import Group, Run, natural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Evaluations come at the ends of rollouts and epochs, so a run of a million steps may have its last a little earlier.
_REACHED = 0.95


@dataclass(frozen=True)
class Bar:
    """A group at one number of environment steps.

    Attributes:
        label: see `runs.Group`.
        task: see `runs.Group`.
        seeds: number of runs.
        env_steps: that were asked for.
        value: the estimate `[]` over seeds.
        std: of a single seed its metric's standard deviation over episodes, where it was logged.
    """

    label: str
    task: str
    seeds: int
    env_steps: int
    value: Estimate
    std: float | None


def make_bars(group: Group, metric: str, steps: Sequence[int], kind: str, note: Callable[[str], None]) -> list[Bar]:
    """The group's bars, one per number of steps that any of its runs has reached.

    Of each run it is the value that was logged closest to these steps. A run that has not come so far is left out of
    that bar, which is noted.
    """
    bars = []
    for at in steps:
        reached = [run for run in group.runs if _reaches(run, metric, at)]
        for run in group.runs:
            if run not in reached:
                note(f"left out at {at:,}: {run.folder} has {metric} up to {run.series(metric)[0][-1]:,.0f} only")
        if reached:
            values = np.array([_closest(run, metric, at) for run in reached])
            spread = f"{metric}_std"
            alone = len(reached) == 1 and len(reached[0].series(spread)[0]) > 0
            std = _closest(reached[0], spread, at) if alone else None
            bars.append(Bar(group.label, group.task, len(reached), at, Estimate.of(values, kind), std))
    return bars


def _reaches(run: Run, metric: str, at: int) -> bool:
    return float(run.series(metric)[0][-1]) >= _REACHED * at


def _closest(run: Run, metric: str, at: int) -> float:
    steps, values = run.series(metric)
    return float(values[np.abs(steps - at).argmin()])


def draw_bars(bars: Sequence[Bar], metric: str, kind: str) -> Figure:
    """A panel per number of steps, in a row per task; a bar per group.

    Args:
        bars: of all groups.
        metric: column that they are about.
        kind: the estimate, for the note below the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(bar.task for bar in bars))
    steps = sorted({bar.env_steps for bar in bars})
    labels = sorted({bar.label for bar in bars}, key=natural)
    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        width, height = max((0.6 + 0.9 * len(labels)) * len(steps), 4.2), 3.4 * len(tasks)
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(len(tasks), len(steps), squeeze=False, sharey="row")
        for row, task in zip(panels, tasks, strict=True):
            row[0].set_ylabel(NAMES.get(metric, metric))
            for panel, at in zip(row, steps, strict=True):
                title = f"{at:,} steps" if len(tasks) == 1 else f"{task}, {at:,} steps"
                panel.set_title(title, fontsize=10)
                _panel(panel, [bar for bar in bars if (bar.task, bar.env_steps) == (task, at)], labels)
        figure.text(0.995, 0.005, _caption(bars, kind), fontsize=7, color="0.4", ha="right", va="bottom")
        figure.get_layout_engine().set(rect=(0, 0.16 / height, 1, 1 - 0.16 / height))
    return figure


def _panel(panel: Axes, bars: Sequence[Bar], labels: Sequence[str]) -> None:
    for bar in bars:
        place, value = labels.index(bar.label), float(bar.value.value)
        panel.bar(place, value, 0.7, color=COLOURS[place % len(COLOURS)], label=bar.label)
        low, high = value, value
        if bar.value.interval is not None:
            low, high = map(float, bar.value.interval)
        elif bar.std is not None:
            low, high = value - bar.std, value + bar.std
        panel.errorbar(place, value, [[value - low], [high - value]], color="0.2", capsize=3, linewidth=1)
    values = {bar.label: f"{float(bar.value.value):.1f}" for bar in bars}
    names = ["\n".join([*label.split(), values.get(label, "-")]) for label in labels]
    panel.set_xticks(range(len(labels)), names, fontsize=7)
    panel.set_xlim(-0.6, len(labels) - 0.4)
    panel.grid(axis="x", visible=False)
    panel.axhline(0, color="0.4", linewidth=0.6)


def _caption(bars: Sequence[Bar], kind: str) -> str:
    if all(bar.seeds == 1 for bar in bars):
        return "a single seed; line: standard deviation over its episodes"
    name = {"mean": "mean", "iqm": "interquartile mean"}[kind]
    return f"bar: {name} over seeds; line: its 95 % bootstrap interval"
