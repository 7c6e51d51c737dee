"""`python -m lit_mbrl plot RUN...`: learning curves of finished or running runs, and a table of where they ended."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lit_mbrl.app.commands.options import OptionParser, positive_integer
from lit_mbrl.reports.bars import Bar, draw_bars, make_bars
from lit_mbrl.reports.curves import AXES, SPREAD, Curve, Estimate, make_curve, usable
from lit_mbrl.reports.figure import draw, save
from lit_mbrl.reports.runs import Group, Run, by_panel, find_runs, group_runs, read_run
from lit_mbrl.reports.statistics import BANDS, ESTIMATES
from lit_mbrl.reports.table import numbers, table
from lit_mbrl.utils.errors import OptionError, UsageError, did_you_mean, printable, require

_DESCRIPTION = """Draws learning curves from the metrics.csv of runs into a PNG and an SVG file and prints a table. One
panel per task; runs of an algorithm are one curve unless an option other than the seed differs among them. The band is
the 95 % bootstrap interval over seeds, or that of the evaluations' episodes. A curve ends where its shortest run does;
where runs were evaluated at different points they are interpolated linearly. The table's last column is the estimate
over seeds of each run's mean over the last tenth of the environment steps that all of them reached (at least its last
evaluation)."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    try:
        plot(argv)
    except (OptionError, UsageError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def plot(argv: Sequence[str]) -> None:
    """Reads the options, then the runs, draws and prints.

    Raises:
        OptionError: for a wrong option.
        UsageError: if there is nothing to draw.
    """
    options = _parser().parse_args(argv)
    require(options.estimate in ESTIMATES, "estimate", options.estimate, " or ".join(ESTIMATES))
    runs = [by_panel(read_run(folder), options.panels) for folder in find_runs(options.runs)]
    require(options.band in BANDS, "band", options.band, " or ".join(BANDS))
    if options.band == "episodes":
        require(options.metric == "eval/return", "metric", options.metric, "eval/return with --band=episodes")
        require(options.estimate == "mean", "estimate", options.estimate, "mean with --band=episodes")
    axes = [AXES.get(name, name) for name in options.x.split(",")]
    require(len(set(axes)) == len(axes), "x", options.x, "axes that differ, as env_steps,policy_updates")
    for option, column in (("metric", options.metric), *(("x", axis) for axis in axes)):
        _require_column(runs, option, getattr(options, option), column)
    if options.band == "episodes":
        _require_column(runs, "band", options.band, SPREAD)
    if options.at is not None:
        require(options.band == "seeds", "band", options.band, "seeds with --at")
        if options.each:
            raise UsageError("--each: expected curves, not bars (--at)")
        _plot_bars(runs, options)
        return
    curves = {axis: _curves(runs, options, axis, len(axes) > 1) for axis in axes}
    out = _output(options.out)
    written = save(draw(curves, options.metric, options.estimate, options.band, options.each), out)
    longest = max(curves.values(), key=len)
    print(printable(_table(longest, options.metric, options.estimate), keep="\n"))
    print(f"\nwritten: {', '.join(map(str, written))}")


def _plot_bars(runs: Sequence[Run], options: argparse.Namespace) -> None:
    steps = [positive_integer("at", text) for text in options.at.split(",")]
    require(len(set(steps)) == len(steps), "at", options.at, "environment steps that differ, as 1000000,2000000")
    require(
        options.x in ("env_steps", "step"), "x", options.x, "no other axis with --at, which chooses environment steps"
    )
    groups = _groups(runs, options.metric, "step")
    bars = [bar for group in groups for bar in make_bars(group, options.metric, steps, options.estimate, _note)]
    if not bars:
        raise UsageError(f"--at={options.at}: expected environment steps that a run has reached")
    written = save(draw_bars(bars, options.metric, options.estimate), _output(options.out))
    print(printable(_bar_table(bars, options.metric, options.estimate), keep="\n"))
    print(f"\nwritten: {', '.join(map(str, written))}")


def _curves(runs: Sequence[Run], options: argparse.Namespace, axis: str, one_of_several: bool) -> list[Curve]:
    """The curves on one axis. Runs without it are left out, which goes without saying where there are other axes."""
    if one_of_several:
        runs = [each for each in runs if len(each.series(axis)[0])]
    groups = _groups(runs, options.metric, axis)
    return [make_curve(group, options.metric, axis, options.estimate, options.band, _note) for group in groups]


def _groups(runs: Sequence[Run], metric: str, axis: str) -> list[Group]:
    """The groups of the runs that have the metric on an axis."""
    kept = [each for each in runs if usable(each, metric, axis, _note)]
    if not kept:
        raise UsageError(f"--metric={metric}: expected a metric that a run has together with {axis}")
    groups, doubles = group_runs(kept)
    drawn = [run for group in groups for run in group.runs]
    for double in doubles:
        other = next(run for run in drawn if _same_experiment(run, double))
        length = "has as many" if other.env_steps == double.env_steps else f"has {other.env_steps:,}"
        reason = f"since {other.folder}, with the same seed and options, {length}"
        _note(f"left out: {double.folder} with {double.env_steps:,} env steps, {reason}")
    return groups


def _same_experiment(run: Run, other: Run) -> bool:
    return all(getattr(run, name) == getattr(other, name) for name in ("algorithm", "task", "seed", "options"))


def _parser() -> OptionParser:
    parser = OptionParser("plot", _DESCRIPTION)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, folders with runs below them, or patterns such as 'runs/*'"
    )
    parser.add_argument(
        "--x",
        default="env_steps",
        help=f"{', '.join(AXES)} or a column of metrics.csv; several, with commas in between, are drawn side by side",
    )
    parser.add_argument("--metric", default="eval/return", help="a column of metrics.csv (default: %(default)s)")
    parser.add_argument(
        "--estimate", default="mean", help="mean, or iqm: the mean of the middle half (default: %(default)s)"
    )
    parser.add_argument(
        "--band",
        default="seeds",
        help="what the 95 %% interval is over: seeds, or episodes, those of each evaluation (default: %(default)s)",
    )
    parser.add_argument(
        "--panels",
        default="task",
        help="what tells panels apart besides the task: task, algorithm, or an option of the configuration as "
        "data.env.kwargs.num_levels (default: %(default)s, nothing else)",
    )
    parser.add_argument(
        "--at", metavar="STEPS", help="bars at these environment steps, with commas in between, in the place of curves"
    )
    parser.add_argument("--each", action="store_true", help="draw every seed, too, as a thin line")
    parser.add_argument("--out", default="curves", help="name of the figures, without ending (default: %(default)s)")
    return parser


def _require_column(runs: Sequence[Run], option: str, value: str, column: str) -> None:
    known = sorted({name for each in runs for name in each.columns})
    if column not in known:
        hint = did_you_mean(column, known)
        raise OptionError(option, value, f"a column of metrics.csv, but no run has {column}{hint}")


def _output(name: str) -> Path:
    out = Path(name)
    out = out.with_suffix("") if out.suffix in (".png", ".svg") else out
    require(out.name != "" and not os.path.isdir(out), "out", name, "the name of a file, without its ending")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            out.with_name(f"{out.name}.png").exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError("out", name, f"a name in a folder that can be written to ({reason})") from error
    return out


def _table(curves: Sequence[Curve], metric: str, kind: str) -> str:
    rows = [("algorithm", "task", "seeds", "env steps", f"{metric} ({kind})", "95 % interval")]
    for curve in curves:
        rows.append((curve.label, curve.task, str(curve.seeds), f"{curve.env_steps:,}", *_final(curve.final)))
    return table(rows, right=(2, 3, 4, 5))


def _bar_table(bars: Sequence[Bar], metric: str, kind: str) -> str:
    rows = [("algorithm", "task", "seeds", "env steps", f"{metric} ({kind})", "95 % interval")]
    for bar in bars:
        rows.append((bar.label, bar.task, str(bar.seeds), f"{bar.env_steps:,}", *_final(bar.value)))
    return table(rows, right=(2, 3, 4, 5))


def _final(final: Estimate) -> tuple[str, str]:
    value, *bounds = numbers(float(final.value), *map(float, final.interval or ()))
    return value, f"[{', '.join(bounds)}]" if bounds else "-"


def _note(line: str) -> None:
    print(printable(line), file=sys.stderr)
