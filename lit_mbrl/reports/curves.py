"""Learning curves: the runs of a group on one common axis, with an estimate and its interval at every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lit_mbrl.reports.runs import Group, Run
from lit_mbrl.reports.statistics import episodes_interval, estimate, interval
from lit_mbrl.utils.errors import UsageError

# Short names of what curves can be drawn against; every other column goes by its own name.
AXES = {
    "env_steps": "step",
    "seconds": "time/seconds",
    "train_steps": "time/train_steps",
    "policy_updates": "time/policy_updates",
    "model_rollouts": "time/model_rollouts",
}
SPREAD = "eval/return_std"  # of the episodes of an evaluation
_MAX_POINTS = 400  # more than a figure has room for
_LAST_PART = 0.1


@dataclass(frozen=True)
class Estimate:
    """An estimate over seeds `[...]` and its 95 % interval, None for a single seed."""

    value: np.ndarray
    interval: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, values: np.ndarray, kind: str) -> Estimate:
        """Of values `[n, ...]`, over the first axis."""
        return cls(estimate(values, kind), interval(values, kind))


@dataclass(frozen=True)
class Curve:
    """A group's learning curve.

    Attributes:
        label: see `Group`.
        task: see `Group`.
        seeds: number of runs.
        x: points `[T]`, increasing.
        y: the estimate at these points `[T]`.
        each: of every run `[n, T]`.
        env_steps: environment steps that all runs have reached.
        final: the estimate `[]` of each run's mean over the last tenth of these environment steps, of its last
            evaluation at least.
    """

    label: str
    task: str
    seeds: int
    x: np.ndarray
    y: Estimate
    each: np.ndarray
    env_steps: int
    final: Estimate


def usable(run: Run, metric: str, axis: str, note: Callable[[str], None]) -> bool:
    """Returns whether a run can be drawn; notes why if it cannot, or not completely."""
    for column in (metric, axis):
        if not len(run.series(column)[0]):
            note(f"left out: {run.folder} has no {column} yet")
            return False
    values = run.series(metric)[1]
    broken = int((~np.isfinite(values)).sum())
    if broken:
        note(f"{run.folder}: {metric} is not a finite number in {broken} of {len(values)} rows, which are left out")
    return broken < len(values)


def make_curve(
    group: Group,
    metric: str,
    axis: str,
    kind: str,
    band: str = "seeds",
    note: Callable[[str], None] = lambda line: None,
) -> Curve:
    """Puts the runs of a group on one axis.

    The points are all those at which any run has the metric, as far as all runs have come: where one run has no
    value of its own it is interpolated linearly. Runs that are evaluated at the same points are not interpolated.

    Args:
        group: `usable` runs.
        metric: column to draw.
        axis: column to draw it against.
        kind: one of `statistics.ESTIMATES`.
        band: what the intervals are over, one of `statistics.BANDS`; `"episodes"`, those of the evaluations, is for the
            mean of `eval/return`.
        note: hears which part of longer runs is left out.

    Raises:
        UsageError: if the runs have no range in common.
    """
    series = [_against(run, metric, axis) for run in group.runs]
    first, last = max(x[0] for x, _ in series), min(x[-1] for x, _ in series)
    if first > last:
        raise UsageError(f"{group.label} on {group.task}: its runs have no range of {axis} in common")
    if longer := sum(x[-1] > last for x, _ in series):
        shortest = next(run for run, (x, _) in zip(group.runs, series, strict=True) if x[-1] == last)
        where = f"{group.label} on {group.task} ends at {last:,.0f} with {shortest.folder}"
        note(f"{where}: what {longer} of its {len(series)} runs have after it is left out")
    points = np.unique(np.concatenate([x for x, _ in series]))
    points = points[(points >= first) & (points <= last)]
    if len(points) > _MAX_POINTS:
        points = points[np.linspace(0, len(points) - 1, _MAX_POINTS).round().astype(int)]
    values = np.stack([np.interp(points, x, y) for x, y in series])
    final, reached = final_values(group.runs, metric)
    y, last = Estimate.of(values, kind), Estimate.of(final, kind)
    if band == "episodes":
        episodes = min(run.eval_episodes for run in group.runs)
        spread = [_against(run, SPREAD, axis) for run in group.runs]
        stds = np.stack([np.interp(points, x, std) for x, std in spread])
        y = Estimate(y.value, episodes_interval(values, stds, episodes))
        last = Estimate(last.value, _final_interval(group.runs, metric, reached, episodes))
    return Curve(group.label, group.task, len(group.runs), points, y, values, int(reached), last)


def final_values(runs: Sequence[Run], metric: str) -> tuple[np.ndarray, float]:
    """Each run's mean over the last tenth of the environment steps that all have reached, `[n]`, and these steps.

    It is the mean of its last evaluation at least.
    """
    by_step = [_against(run, metric, "step") for run in runs]
    reached = min(steps[-1] for steps, _ in by_step)
    return np.array([_final(steps, y, reached) for steps, y in by_step]), float(reached)


def _final_interval(
    runs: Sequence[Run], metric: str, reached: float, episodes: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The interval of the mean over the episodes of all evaluations that `_final` averages."""
    parts = []
    for run in runs:
        (steps, means), (_, stds) = (_against(run, column, "step") for column in (metric, SPREAD))
        chosen = _last_part(steps, reached)
        parts.append(np.stack([means[chosen], stds[chosen]]))
    means, stds = np.concatenate(parts, 1)
    return episodes_interval(means, stds, episodes)


def _against(run: Run, metric: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Axis and metric `[T]`, the axis increasing. A row without the axis gets its value by environment steps."""
    steps, y = run.series(metric)
    known, x = run.series(axis)
    inside = np.isfinite(y) & (steps >= known[0]) & (steps <= known[-1])
    x, y = np.interp(steps[inside], known, x), y[inside]
    if not len(x):
        raise UsageError(f"{run.folder}: its rows with {metric} lie outside of those with {axis}")
    if (np.diff(x) < 0).any():
        raise UsageError(f"--x={axis}: expected a column that grows, but in {run.folder} it does not")
    new = np.append(np.diff(x) > 0, True)  # of the rows at one point the last
    return x[new], y[new]


def _final(steps: np.ndarray, values: np.ndarray, reached: float) -> float:
    return float(values[_last_part(steps, reached)].mean())


def _last_part(steps: np.ndarray, reached: float) -> np.ndarray:
    """Selects the rows that lie in the last tenth of the steps that all have reached: the last of them at least.

    Of a run that has its first row later than another its last one it is the first.
    """
    within = steps <= reached
    last = within & (steps > (1 - _LAST_PART) * reached)
    if last.any():
        return last
    return steps == (steps[within][-1] if within.any() else steps[0])
