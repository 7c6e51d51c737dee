"""Learning curves as a figure: one panel per task and axis, one line with its band per group."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mbrl.reports.curves import AXES, Curve
from lit_mbrl.reports.runs import natural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, which most colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")
NAMES = {
    "step": "environment steps",
    "time/train_steps": "training steps",
    "time/policy_updates": "policy updates",
    "time/model_rollouts": "model rollouts",
    "eval/return": "evaluation return",
    "eval/train_levels_return": "evaluation return, training levels",
    "train/return": "training return",
    "policy/entropy": "policy entropy [nats]",
}
_TIMES = ((3600.0 * 2, 3600.0, "h"), (60.0 * 2, 60.0, "min"), (0.0, 1.0, "s"))
_COLUMNS = 3
# Settings of the figure itself; whatever matplotlibrc the user has, it looks the same and has the same bytes.
RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "svg.hashsalt": "lit_mbrl",
    "text.parse_math": False,  # a name with a dollar is a name
}


def draw(
    curves: Mapping[str, Sequence[Curve]], metric: str, kind: str, band: str = "seeds", each: bool = False
) -> Figure:
    """Draws the same runs against several axes, as MEMR's figure 2 (arXiv 2006.04802) does.

    One axis: a panel per task. Several: the axes side by side for a single task, otherwise a row per axis and a column
    per task. A group that has no curve on an axis (SAC and model rollouts) is missing from its panels alone.

    Args:
        curves: of each axis, a column; those of the first name the tasks.
        metric: column on the y-axes.
        kind: the estimate, for the note below the figure.
        band: what the intervals are over, for the same.
        each: draw every seed, too, as a thin line.
    """
    import matplotlib
    from matplotlib.figure import Figure

    everything = [curve for group in curves.values() for curve in group]
    tasks = list(dict.fromkeys(curve.task for curve in everything))
    places = [(axis, task) for axis in curves for task in tasks]
    square = 2 if len(tasks) == 4 else _COLUMNS  # four tasks make a square
    columns = min(len(tasks), square) if len(curves) == 1 else len(curves) if len(tasks) == 1 else len(tasks)
    rows = math.ceil(len(places) / columns)
    labels = sorted({curve.label for curve in everything}, key=natural)
    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        width, height = (6.4, 4.0) if columns == 1 else (3.9 * columns, 3.2)
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel in panels[len(places) :]:
            panel.remove()
        for i, (panel, (axis, task)) in enumerate(zip(panels, places, strict=False)):
            shown = [curve for curve in curves[axis] if curve.task == task]
            _panel(panel, shown, axis, [labels.index(curve.label) for curve in shown], each)
            if len(curves) == 1 or i < columns:
                panel.set_title(task, fontsize=10)
            if i % columns == 0:
                panel.set_ylabel(NAMES.get(metric, metric))
        figure.text(
            0.995, 0.005, _caption(everything, kind, band, each), fontsize=7, color="0.4", ha="right", va="bottom"
        )
        # Room for the note, which constrained layout does not know of.
        figure.get_layout_engine().set(rect=(0, 0.16 / (height * rows), 1, 1 - 0.16 / (height * rows)))
    return figure


def _panel(panel: Axes, curves: Sequence[Curve], axis: str, indices: Sequence[int], each: bool) -> None:
    """Curves and their legend; a panel without any says so."""
    divisor, name = _axis(axis, max((float(curve.x[-1]) for curve in curves), default=1.0))
    panel.set_xlabel(name)
    if not curves:
        panel.text(0.5, 0.5, "no run has this axis", transform=panel.transAxes, ha="center", color="0.4", fontsize=8)
        return
    for curve, index in zip(curves, indices, strict=True):
        _line(panel, curve, divisor, index, each)
    _ticks(panel, divisor)
    panel.legend(framealpha=0.75, edgecolor="none", fontsize=8, loc="best", handlelength=1.6)


def save(figure: Figure, out: Path, pdf: bool = False) -> list[Path]:
    """Writes `<out>.png` and `<out>.svg`, and `<out>.pdf` if wanted. Equal figures give equal files."""
    import matplotlib

    written = []
    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        kinds = {"png": None, "svg": {"Date": None}} | ({"pdf": {"CreationDate": None}} if pdf else {})
        for kind, metadata in kinds.items():
            path = out.with_name(f"{out.name}.{kind}")
            figure.savefig(path, dpi=200, metadata=metadata)
            written.append(path)
    return written


def _line(panel: Axes, curve: Curve, divisor: float, index: int, each: bool) -> None:
    x = curve.x / divisor
    style = {"color": COLOURS[index % len(COLOURS)]}
    label = "\n".join(textwrap.wrap(f"{curve.label} (n={curve.seeds})", 38))
    dashes = _STYLES[index // len(COLOURS) % len(_STYLES)]
    marker = {"marker": "o", "markersize": 3} if len(x) <= 30 else {}
    panel.plot(x, curve.y.value, dashes, label=label, linewidth=1.5, **marker, **style)
    if each and curve.seeds > 1:
        panel.plot(x, curve.each.T, dashes, linewidth=0.5, alpha=0.5, **style)
    if curve.y.interval is not None:
        panel.fill_between(x, *curve.y.interval, alpha=0.2, linewidth=0, **style)
        if len(x) == 1:  # a band without width
            panel.vlines(x, *curve.y.interval, alpha=0.4, linewidth=1.5, **style)


def _axis(column: str, largest: float) -> tuple[float, str]:
    """Returns the column's divisor and the axis's label."""
    if column == AXES["seconds"]:
        divisor, unit = next((divisor, unit) for least, divisor, unit in _TIMES if largest >= least)
        return divisor, f"training time [{unit}]"
    return 1.0, NAMES.get(column, column)


def _ticks(panel: Axes, divisor: float) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if divisor == 1.0:
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _caption(curves: Sequence[Curve], kind: str, band: str, each: bool) -> str:
    single = all(curve.seeds == 1 for curve in curves)
    thin = "; thin lines: the seeds" if each and not single else ""
    if band == "episodes":
        mean = "line: mean over the episodes of an evaluation, and over n seeds"
        return f"{mean}; band: 95 % interval of all these episodes{thin}"
    if single:
        return "a single seed"
    name = {"mean": "mean", "iqm": "interquartile mean"}[kind]
    return f"line: {name} over n seeds; band: its 95 % bootstrap interval{thin}"
