"""Figure 3 of the SVG paper: error against episodes, a colour per model, a line per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_mbrl.reports.figure import COLOURS, RC, save

SPLITS = ("training", "hold-out", "test")
_STYLES = {"training": ":", "hold-out": "--", "test": "-"}


def draw_errors(rows: Sequence[Any], title: str, out: Path) -> list[Path]:
    """Draws and writes `<out>.png` and `<out>.svg`.

    Args:
        rows: with `episodes`, `model`, `split`, `mse` and `mse_per_step`.
        title: of the figure.
        out: name of the files, without ending.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        panel = figure.subplots()
        models = list(dict.fromkeys(row.model for row in rows))
        for model, colour in zip(models, COLOURS, strict=False):
            for split in SPLITS:
                shown = [row for row in rows if row.model == model and row.split == split]
                panel.plot(
                    [row.episodes for row in shown],
                    [row.mse for row in shown],
                    _STYLES[split],
                    color=colour,
                    marker="o",
                    markersize=3,
                    linewidth=1.5,
                    label=f"{model}, {split}",
                )
        panel.set_yscale("log")
        panel.set_xlim(left=0)
        panel.set_xlabel("episodes of the replay")
        panel.set_ylabel(f"MSE over {len(rows[0].mse_per_step)} steps")
        panel.set_title(title, fontsize=10)
        panel.legend(frameon=False, fontsize=8, ncols=len(models))
    return save(figure, out)
