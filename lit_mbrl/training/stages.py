"""Describes a run that consists of several stages: collect, fit a model, then learn in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One part of a run, which begins when the one before it is over: `Algorithm.stages`.

    Training steps come first, at the environment step at which the stage begins; then environment steps, and training
    steps among them.

    Attributes:
        name: for messages, and of `start_stage`.
        updates: names of the updates that take part; None: all.
        train_steps: training steps at its start, without a step of the environment.
        env_steps: environment steps.
        utd_ratio: training steps per environment step among these; None: the data module's `utd_ratio`.
        epoch_steps: training steps between two evaluations (and checkpoints) at its start; None: all of them.
    """

    name: str
    updates: tuple[str, ...] | None = None
    train_steps: int = 0
    env_steps: int = 0
    utd_ratio: Fraction | None = None
    epoch_steps: int | None = None

    def has(self, update: str) -> bool:
        """Returns whether an update takes part."""
        return self.updates is None or update in self.updates


def untrained(algorithm: Any, stages: Sequence[Stage], running: str | None) -> set[str]:
    """Returns the names of the parameters that only stages to come train.

    Args:
        algorithm: with its networks.
        stages: of its run; none if it has but one.
        running: the stage that has begun last; None: it is not known, so that none is to come.
    """
    names = [stage.name for stage in stages]
    if running not in names:
        return set()
    begun = stages[: names.index(running) + 1]
    to_come = [update for update in algorithm.updates() if not any(stage.has(update.name) for stage in begun)]
    found = {id(parameter) for update in to_come for parameter in update.parameters()}
    return {name for name, parameter in algorithm.named_parameters() if id(parameter) in found}
