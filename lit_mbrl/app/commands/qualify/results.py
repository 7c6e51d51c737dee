"""Results of runs: the evaluations of one, and the statistics of all seeds of a config on a path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lit_mbrl.reports.runs import read_run
from lit_mbrl.reports.statistics import ESTIMATES, estimate, interval
from lit_mbrl.utils.errors import UsageError

_NINE_OF_TEN = (9, 10)  # seeds that have to reach the threshold


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run, against a threshold.

    Attributes:
        env_steps: environment steps at each of them, increasing.
        returns: mean return over the episodes of each.
        threshold: the return that counts as having learned.
        seconds: wall-clock seconds of training, those of evaluations included.
        total_frames: environment steps that the run is to take.
    """

    env_steps: tuple[int, ...]
    returns: tuple[float, ...]
    threshold: float
    seconds: float = 0.0
    total_frames: int = 0

    @property
    def finished(self) -> bool:
        """Returns whether the run's last evaluation has been made."""
        return bool(self.env_steps) and self.env_steps[-1] >= self.total_frames

    @property
    def final(self) -> float:
        """Return of the last evaluation."""
        return self.returns[-1]

    @property
    def reached(self) -> bool:
        """Returns whether the run ends at the threshold or above."""
        return self.final >= self.threshold

    @property
    def first_reached_at(self) -> int | None:
        """Environment steps of the first evaluation at the threshold or above, None if there is none."""
        reached = (steps for steps, value in zip(self.env_steps, self.returns, strict=True) if value >= self.threshold)
        return next(reached, None)

    @property
    def fall_backs(self) -> tuple[float, ...]:
        """Returns below the threshold after the first one that reached it."""
        first = self.first_reached_at
        if first is None:
            return ()
        pairs = zip(self.env_steps, self.returns, strict=True)
        return tuple(value for steps, value in pairs if steps > first and not value >= self.threshold)

    def as_dict(self) -> dict[str, Any]:
        """Everything about the run, as plain values."""
        return {
            "final": self.final,
            "best": max(self.returns),
            "reached": self.reached,
            "first_reached_at": self.first_reached_at,
            "fall_backs": len(self.fall_backs),
            "worst_fall_back": min(self.fall_backs, default=None),
            "seconds": self.seconds,
            "env_steps": list(self.env_steps),
            "returns": list(self.returns),
        }


def read_evaluations(folder: Path, threshold: float) -> Evaluations | None:
    """Reads the evaluations of a run folder, None if there are none yet."""
    try:
        total = int(yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]["total_frames"])
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder / 'config.yaml'}: expected the config.yaml of a run, with data.total_frames"
        ) from error
    if not (folder / "metrics.csv").is_file():
        return None
    run = read_run(folder)
    steps, returns = run.series("eval/return")
    if not len(steps):
        return None
    seconds = run.series("time/seconds")[1]
    return Evaluations(
        tuple(map(int, steps)),
        tuple(map(float, returns)),
        threshold,
        float(seconds[-1]) if len(seconds) else 0.0,
        total,
    )


def deep_fall_back(threshold: float, random: float) -> float:
    """The return below which a fall-back is deep: a quarter of the way back from the threshold to random actions."""
    return threshold - (threshold - random) / 4


def verdict_of(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Computes how many runs of all floating-point paths end at the threshold, and whether each path qualifies."""
    summaries = [path["summary"] for path in paths.values()]
    return {
        "reached": sum(summary["reached"] for summary in summaries),
        "runs": sum(summary["seeds"] for summary in summaries),
        "qualified": all(summary["qualified"] for summary in summaries),
    }


def summarize(
    runs: Sequence[Evaluations], planned: int, threshold: float, random: float, floor: float | None = None
) -> dict[str, Any]:
    """Statistics over the seeds of a config on a path.

    Args:
        runs: the finished ones.
        planned: number of seeds, those included whose run failed.
        threshold: return that counts as having learned.
        random: return of random actions.
        floor: return below which no run may end.

    Returns:
        `reached` of `seeds` end at the threshold (a failed run does not); `iqm` and `mean` of the final returns with
        their 95 % bootstrap intervals; `worst`; `below_floor`; `deep_fall_backs`, the number of runs that ever fell
        back deep; `median_seconds`; `qualified`.
    """
    final = np.array([run.final for run in runs])
    reached = sum(run.reached for run in runs)
    deep = deep_fall_back(threshold, random)
    below = 0 if floor is None else sum(not run.final >= floor for run in runs)
    found: dict[str, Any] = {
        "seeds": planned,
        "failed": planned - len(runs),
        "reached": reached,
        "share": reached / planned,
        "below_floor": below,
        "qualified": reached * _NINE_OF_TEN[1] >= planned * _NINE_OF_TEN[0] and below == 0,
        "deep_fall_backs": sum(min(run.fall_backs, default=math.inf) < deep for run in runs),
    }
    if not len(final):
        return found
    for kind in ESTIMATES:
        bounds = interval(final, kind)
        found[kind] = float(estimate(final, kind))
        found[f"{kind}_interval_95"] = None if bounds is None else [float(bound) for bound in bounds]
    return found | {"worst": float(final.min()), "median_seconds": float(np.median([run.seconds for run in runs]))}
