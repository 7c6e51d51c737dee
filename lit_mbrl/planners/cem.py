"""The cross-entropy method over action sequences: PlaNet's and PETS'.

Candidates are drawn from a distribution per action and step, the best of them fit the next one, and the plan is the
mean of the last.

PlaNet (Hafner et al. 2019, arXiv 1811.04551) draws from a normal distribution. Two things are those of its code
(`planet/control/planning.py`): candidates are clipped to the action range before the refit, and the standard deviation
of the elites is `sqrt(var + 1e-6)`, which never becomes 0.

PETS (Chua et al. 2018, arXiv 1805.12114) leaves the distribution to its code (`dmbrl/misc/optimizers/cem.py`): normal,
truncated at two standard deviations, whose variance is capped so that this is at most the distance to the bounds:

    sigma^2 <= min(((mean - low) / 2)^2, ((high - mean) / 2)^2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from lit_mbrl.planners.base import Objective, Planner, Search, evaluate
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import HalfOpenUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt, Rule

_LEAST_VARIANCE = 1e-6
_WITHIN_TWO_SIGMA = math.erf(math.sqrt(2.0))  # probability of a normal number


SeveralInt = Annotated[int, Rule("an integer > 1", lambda value: value > 1)]


@options(frozen=True, eq=True, repr=True)
class CEM(Planner):
    """PlaNet's cross-entropy method, for B environments at once."""

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

    def draws(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """Draws the noise of each iteration."""
        for _ in range(self.iterations):
            yield self.draw((batch_size, self.num_candidates, self.horizon, action_dim), device)

    def plan(self, objective: Callable[[Tensor], Tensor], noise: Tensor, initial_mean: Tensor | None = None) -> Tensor:
        """The mean action sequences after the last refit, `[B, H, A]`, in [-1, 1].

        Args:
            objective: maps candidates `[B, N, H, A]` to their returns `[B, N]`; one that is not a number loses.
            noise: what `noise` returned.
            initial_mean: `[B, H, A]`, where the search starts, such as the rest of the last plan (`shift_plan`); None:
                0.
        """
        mean = torch.zeros_like(noise[0, :, 0]) if initial_mean is None else initial_mean
        return self.search(objective, noise, mean.unsqueeze(1)).plan

    @torch.no_grad()
    def search(self, objective: Objective, draws: Iterable[Tensor], memory: Tensor) -> Search:
        """Refits until the iterations are over or no environment's distribution has any width left."""
        mean, iterations = memory[:, 0], 0
        width = self.first_width(mean)
        value, variance = mean.new_full((len(mean),), torch.nan), mean.new_full((len(mean),), torch.nan)
        for z in draws:
            going = self.going(width)
            if going is not None and not going.any():
                break
            iterations += 1
            candidates = self.candidates(mean, width, z)
            returns = evaluate(objective, candidates)
            best = returns.topk(self.num_elites, dim=1)
            elites = candidates.take_along_dim(best.indices[:, :, None, None], dim=1)
            of_elites, fitted = torch.var_mean(elites, dim=1, correction=0)
            new_mean, new_width = torch.lerp(fitted, mean, self.momentum), self.refit(of_elites, width)
            new_value, new_variance = best.values.mean(1), of_elites.mean((1, 2))
            if going is None:
                mean, width, value, variance = new_mean, new_width, new_value, new_variance
                continue
            each = going[:, None, None]
            mean, width = torch.where(each, new_mean, mean), torch.where(each, new_width, width)
            value, variance = torch.where(going, new_value, value), torch.where(going, new_variance, variance)
        return Search(mean, mean.unsqueeze(1), value, variance, iterations)

    # ------------------------------------------------------------------ the distribution
    def draw(self, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
        """Draws the noise of an iteration: standard normal."""
        return torch.randn(shape, device=device)

    def first_width(self, mean: Tensor) -> Tensor:
        """Returns the first distribution's width, `[B, H, A]`: its standard deviation."""
        return torch.full_like(mean, self.init_std)

    def candidates(self, mean: Tensor, width: Tensor, z: Tensor) -> Tensor:
        """Returns candidates `[B, N, H, A]` in [-1, 1] from mean and width `[B, H, A]` and noise."""
        return (mean[:, None] + width[:, None] * z).clamp(-1.0, 1.0)

    def refit(self, variance: Tensor, width: Tensor) -> Tensor:
        """Returns the new width from the elites' variance and the old width, `[B, H, A]` each."""
        return torch.lerp((variance + _LEAST_VARIANCE).sqrt(), width, self.momentum)

    def going(self, width: Tensor) -> Tensor | None:
        """Returns which environments go on, bool `[B]`; None: all of them do."""
        return None


@options(frozen=True, eq=True, repr=True)
class TruncatedCEM(CEM):
    """PETS' cross-entropy method: truncated at two sigma, within the bounds, smoothed, with a stop.

    The public code's variance of the first candidates, `(high - low)^2 / 16`, is 0.25 in units of [-1, 1].
    """

    horizon: PositiveInt = 25
    """H, steps of a plan."""
    num_candidates: SeveralInt = 400
    """N, sequences tried per iteration."""
    num_elites: SeveralInt = 40
    """K, the best of them, which fit the next distribution."""
    iterations: PositiveInt = 5
    """Refits at most."""
    init_std: PositiveFloat = 0.5
    """Standard deviation of the first candidates."""
    momentum: HalfOpenUnitInterval = 0.1
    """Share of the old mean and variance that a refit keeps."""
    min_variance: NonNegativeFloat = 1e-3
    """An environment's search stops once no variance is above this; 0: never. The public code's 0.001 is in units of
    the environment's own actions, this in units of [-1, 1]."""
    bound: PositiveFloat | None = 1.0
    """Candidates lie in [-bound, bound]; null: anywhere."""

    def draw(self, shape: tuple[int, ...], device: torch.device | None) -> Tensor:
        """Draws from a standard normal distribution that is cut off at -2 and 2, whose variance is 0.774."""
        uniform = torch.rand(shape, device=device).mul_(2.0).sub_(1.0)
        return uniform.mul_(_WITHIN_TWO_SIGMA).erfinv_().mul_(math.sqrt(2.0))

    def noise(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Tensor:
        """Noise of a whole plan, `[iterations, B, N, H, A]`."""
        return torch.stack(list(self.draws(batch_size, action_dim, device)))

    def first_width(self, mean: Tensor) -> Tensor:
        """Returns the first variance, `[B, H, A]`."""
        return torch.full_like(mean, self.init_std**2)

    def candidates(self, mean: Tensor, width: Tensor, z: Tensor) -> Tensor:
        """Returns candidates `[B, N, H, A]` from mean and variance `[B, H, A]`, within the bounds without clipping."""
        std = width.sqrt()
        if self.bound is not None:
            # The mean is inside but for rounding; so are candidates, which are two standard deviations away at most.
            std = torch.minimum(std, (0.5 * (self.bound - mean.abs())).clamp(min=0.0))
        return torch.addcmul(mean[:, None], std[:, None], z)

    def refit(self, variance: Tensor, width: Tensor) -> Tensor:
        """Returns the smoothed variance, `[B, H, A]`; the cap is no part of it."""
        return torch.lerp(variance, width, self.momentum)

    def going(self, width: Tensor) -> Tensor | None:
        """Returns whose variance is above `min_variance` somewhere, bool `[B]`."""
        return width.amax((1, 2)) > self.min_variance if self.min_variance > 0 else None


def shift_plan(plan: Tensor) -> Tensor:
    """The rest of a plan `[B, H, A]` whose first action has been taken, with 0 as its last."""
    return torch.cat([plan[:, 1:], torch.zeros_like(plan[:, :1])], 1)
