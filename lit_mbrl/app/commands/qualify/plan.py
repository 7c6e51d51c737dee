"""The runs of a qualification: every seed of every config on every floating-point path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_mbrl.app.commands.qualify.thresholds import Threshold
from lit_mbrl.app.experiment.paths import FloatPath
from lit_mbrl.app.experiment.run import ExperimentRun, check_overrides, fingerprint
from lit_mbrl.utils.errors import UsageError


@dataclass(frozen=True)
class PlannedRun(ExperimentRun):
    """One seed of one config on one floating-point path.

    Attributes:
        goal: the config and its threshold.
        path: the floating-point path.
    """

    goal: Threshold
    path: FloatPath


def plan(
    goals: Sequence[Threshold], paths: Sequence[FloatPath], seeds: Sequence[int], out: Path, overrides: Sequence[str]
) -> list[PlannedRun]:
    """All runs, seed by seed, so that the first results are about every config.

    Raises:
        UsageError: if an override is an option that `qualify` gives itself, or a seed is no evidence for a config.
    """
    check_overrides("qualify", overrides)
    for goal in goals:
        used = [seed for seed in seeds if seed in goal.seeds_used_for_options]
        if used:
            raise UsageError(
                f"--seeds: expected seeds on which the options of {goal.config} were not chosen; "
                f"{', '.join(map(str, used))} {'was' if len(used) == 1 else 'were'} (seeds_used_for_options)"
            )
    kinds = []
    for goal in goals:
        for path in paths:
            options = (*overrides, *path.options)  # the path's come last, which is what holds
            kinds.append((goal, path, options, fingerprint([goal.file], options, path.variables)))
    return [
        PlannedRun(
            name=f"{goal.config} {path.name} seed {seed}",
            configs=(goal.file,),
            options=options,
            seed=seed,
            folder=out / goal.config / path.name / f"seed_{seed}",
            environment=path.environment(),
            shown_variables=path.variables,
            fingerprint=mark,
            goal=goal,
            path=path,
        )
        for seed in seeds
        for goal, path, options, mark in kinds
    ]
