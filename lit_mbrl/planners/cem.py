"""The cross-entropy method over action sequences.

As PlaNet plans (Hafner et al. 2019, arXiv 1811.04551): candidates are drawn from a normal distribution per action and
step, the best of them fit the next one, and the plan is the mean of the last. Two things are those of its code
(`planet/control/planning.py`): candidates are clipped to the action range before the refit, and the standard deviation
of the elites is `sqrt(var + 1e-6)`, which never becomes 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import HalfOpenUnitInterval, PositiveFloat, PositiveInt, Rule

_LEAST_VARIANCE = 1e-6


SeveralInt = Annotated[int, Rule("an integer > 1", lambda value: value > 1)]


@options(frozen=True, eq=True, repr=True)
class CEM:
    """A planner for B environments at once, each with candidates of its own."""

    section: ClassVar[str] = "model.planner"

    horizon: PositiveInt = 12
    """H, steps of a plan."""
    num_candidates: SeveralInt = 1000
    """N, sequences tried per iteration."""
    num_elites: SeveralInt = 100
    """K, the best of them, which fit the next distribution."""
    iterations: PositiveInt = 10
    """Refits."""
    init_std: PositiveFloat = 1.0
    """Standard deviation of the first candidates, in units of the action range [-1, 1]."""
    momentum: HalfOpenUnitInterval = 0.0
    """Share of the old mean and standard deviation that a refit keeps; 0 in PlaNet, 0.1 in PETS."""

    def __post_init__(self) -> None:
        at_most = f"an integer > 1 and at most num_candidates={self.num_candidates}"
        require(self.num_elites <= self.num_candidates, "model.planner.num_elites", self.num_elites, at_most)

    def noise(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Tensor:
        """Standard normal noise of a whole plan, `[iterations, B, N, H, A]`."""
        shape = (self.iterations, batch_size, self.num_candidates, self.horizon, action_dim)
        return torch.randn(shape, device=device)

    @torch.no_grad()
    def plan(self, objective: Callable[[Tensor], Tensor], noise: Tensor, initial_mean: Tensor | None = None) -> Tensor:
        """The mean action sequences after the last refit, `[B, H, A]`, in [-1, 1].

        Args:
            objective: maps candidates `[B, N, H, A]` to their returns `[B, N]`; one that is not a number loses.
            noise: what `noise` returned.
            initial_mean: `[B, H, A]`, where the search starts, such as the rest of the last plan (`shift_plan`); None:
                0.
        """
        mean = torch.zeros_like(noise[0, :, 0]) if initial_mean is None else initial_mean
        std = torch.full_like(mean, self.init_std)
        for z in noise:
            candidates = (mean[:, None] + std[:, None] * z).clamp(-1.0, 1.0)
            returns = objective(candidates).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            best = returns.topk(self.num_elites, dim=1).indices[:, :, None, None]
            elites = candidates.take_along_dim(best, dim=1)
            variance, fitted = torch.var_mean(elites, dim=1, correction=0)
            mean = torch.lerp(fitted, mean, self.momentum)
            std = torch.lerp((variance + _LEAST_VARIANCE).sqrt(), std, self.momentum)
        return mean


def shift_plan(plan: Tensor) -> Tensor:
    """The rest of a plan `[B, H, A]` whose first action has been taken, with 0 as its last."""
    return torch.cat([plan[:, 1:], torch.zeros_like(plan[:, :1])], 1)
