"""Learning curves as a picture: one panel per task, one line with its band per group."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
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
_NAMES = {
    "step": "environment steps",
    "time/rounds": "rounds of updates",
    "time/policy_updates": "policy updates",
    "time/model_rollouts": "model rollouts",
    "eval/return": "evaluation return",
    "train/return": "training return",
}
_TIMES = ((3600.0 * 2, 3600.0, "h"), (60.0 * 2, 60.0, "min"), (0.0, 1.0, "s"))
_COLUMNS = 3
# Settings of the picture itself; whatever matplotlibrc the user has, it looks the same and has the same bytes.
RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "svg.hashsalt": "lit_mbrl",
}


def draw(curves: Sequence[Curve], metric: str, axis: str, kind: str) -> Figure:
    """Draws the curves.

    Args:
        curves: at least one.
        metric: column on the y-axes.
        axis: column on the x-axes.
        kind: the estimate, for the note below the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        tasks = list(dict.fromkeys(curve.task for curve in curves))
        labels = sorted({curve.label for curve in curves}, key=natural)
        columns = min(len(tasks), _COLUMNS)
        rows = math.ceil(len(tasks) / columns)
        width, height = (6.4, 4.0) if columns == 1 else (3.9 * columns, 3.2)
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for i, panel in enumerate(panels):
            if i >= len(tasks):
                panel.remove()
                continue
            shown = [curve for curve in curves if curve.task == tasks[i]]
            divisor, name = _axis(axis, max(float(curve.x[-1]) for curve in shown))
            for curve in shown:
                _line(panel, curve, divisor, labels.index(curve.label))
            panel.set_title(tasks[i], fontsize=10)
            panel.set_xlabel(name)
            _ticks(panel, divisor)
            if i % columns == 0:
                panel.set_ylabel(_NAMES.get(metric, metric))
            panel.legend(frameon=False, fontsize=8, loc="best", handlelength=1.6)
        figure.text(0.995, 0.005, _caption(curves, kind), fontsize=7, color="0.4", ha="right", va="bottom")
        # Room for the note, which constrained layout does not know of.
        figure.get_layout_engine().set(rect=(0, 0.16 / (height * rows), 1, 1 - 0.16 / (height * rows)))
    return figure


def save(figure: Figure, out: Path) -> list[Path]:
    """Writes `<out>.png` and `<out>.svg`. Equal figures give equal files."""
    import matplotlib

    written = []
    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        for kind, metadata in (("png", None), ("svg", {"Date": None})):
            path = out.with_name(f"{out.name}.{kind}")
            figure.savefig(path, dpi=200, metadata=metadata)
            written.append(path)
    return written


def _line(panel: Axes, curve: Curve, divisor: float, index: int) -> None:
    x = curve.x / divisor
    style = {"color": COLOURS[index % len(COLOURS)]}
    label = "\n".join(textwrap.wrap(f"{curve.label} (n={curve.seeds})", 38))
    dashes = _STYLES[index // len(COLOURS) % len(_STYLES)]
    marker = {"marker": "o", "markersize": 3} if len(x) <= 30 else {}
    panel.plot(x, curve.y.value, dashes, label=label, linewidth=1.5, **marker, **style)
    if curve.y.interval is not None:
        panel.fill_between(x, *curve.y.interval, alpha=0.2, linewidth=0, **style)
        if len(x) == 1:  # a band without width
            panel.vlines(x, *curve.y.interval, alpha=0.4, linewidth=1.5, **style)


def _axis(column: str, largest: float) -> tuple[float, str]:
    """What to divide the column by, and what the axis is called."""
    if column == AXES["seconds"]:
        divisor, unit = next((divisor, unit) for least, divisor, unit in _TIMES if largest >= least)
        return divisor, f"training time [{unit}]"
    return 1.0, _NAMES.get(column, column)


def _ticks(panel: Axes, divisor: float) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if divisor == 1.0:
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _caption(curves: Sequence[Curve], kind: str) -> str:
    if all(curve.seeds == 1 for curve in curves):
        return "a single seed"
    name = {"mean": "mean", "iqm": "interquartile mean"}[kind]
    return f"line: {name} over n seeds; band: its 95 % bootstrap interval"
