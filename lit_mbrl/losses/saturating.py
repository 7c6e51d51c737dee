"""The saturating cost of PILCO, and its moments where the state is normal.

Deisenroth and Rasmussen 2011, "PILCO", section 2.3: `c(d) = 1 - exp(-|d|^2 / (2 width^2))` of a distance vector `d`.
Near the target it is quadratic, and far from it 1, so that a state of which nothing is known is worth exploring.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

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


def saturating_cost(distance: Tensor, width: float) -> Tensor:
    """Returns the cost of distance vectors `[..., D]`, `[...]`."""
    return 1.0 - (-0.5 * distance.square().sum(-1) / width**2).exp()


def saturating_cost_moments(mean: Tensor, covariance: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Computes mean and variance `[...]` of the cost of a distance vector that is normal (equation 25).

    Args:
        mean: `[..., D]`.
        covariance: `[..., D, D]`.
        width: of the cost.
    """
    first = _expected_bell(mean, covariance, width**-2)
    second = _expected_bell(mean, covariance, 2.0 * width**-2)
    return 1.0 - first, (second - first.square()).clamp(min=0.0)


def _expected_bell(mean: Tensor, covariance: Tensor, precision: float) -> Tensor:
    """`E[exp(-precision/2 |d|^2)]`."""
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    factor = torch.linalg.cholesky(eye + precision * covariance)
    solved = torch.linalg.solve_triangular(factor, mean.unsqueeze(-1), upper=False).squeeze(-1)
    root = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (-root - 0.5 * precision * solved.square().sum(-1)).exp()
