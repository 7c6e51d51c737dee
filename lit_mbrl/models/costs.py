"""Saturating costs of a state with angles, as options, and those that are a task's own (`losses/saturating.py`)."""

from __future__ import annotations

import math
from typing import ClassVar

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat


@options(eq=True, repr=True)
class SaturatingCost:
    """`1 - exp(-|M z - target|^2 / (2 width^2)) + action_weight |u|^2`.

    `u` is an action, with numbers from -1 to 1, and `z` the observation behind it with, at its end, the sines and then
    the cosines of its angles.
    """

    section: ClassVar[str] = "model.cost"

    matrix: tuple[tuple[float, ...], ...]
    """`M`, a row for each number of the distance."""
    target: tuple[float, ...]
    """Where `M z` should be."""
    width: PositiveFloat
    """Distance at which the cost is 0.39."""
    action_weight: NonNegativeFloat = 0.0
    """Weight of the squared action."""

    def __post_init__(self) -> None:
        rows = f"{len(self.matrix)} numbers, one for each row of model.cost.matrix"
        require(len(self.target) == len(self.matrix) > 0, "model.cost.target", self.target, rows)


# Tasks whose reward is one minus such a cost.
KNOWN_COSTS: dict[str, SaturatingCost] = {
    "pets/CartPole": SaturatingCost(
        matrix=((1.0, 0.0, 0.0, 0.0, -0.6, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, -0.6)),
        target=(0.0, 0.6),
        width=0.6 / math.sqrt(2.0),
        action_weight=0.09,
    )
}
