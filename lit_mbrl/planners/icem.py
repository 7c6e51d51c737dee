"""iCEM: the cross-entropy method with coloured noise and a memory (Pinneri et al. 2020, arXiv 2008.06389).

To CEM it adds noise that is correlated over time (power spectrum `f^-beta`), a population that shrinks by `decay` in
each iteration, elites that are kept from iteration to iteration and, shifted, from step to step, the mean as a
candidate of the last iteration, and the best candidate seen, not the mean, as the plan.

Readings: where no elites have been kept, at the beginning of an episode, zeros stand in for them; the last action of
a shifted sequence is 0, where the paper draws one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from lit_mbrl.planners.base import Objective, Planner, Search, evaluate
from lit_mbrl.planners.cem import SeveralInt
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    HalfOpenUnitInterval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Rule,
)


@options(frozen=True, eq=True, repr=True)
class ICEM(Planner):
    """The cross-entropy method with coloured noise, a shrinking population and kept elites."""

    horizon: PositiveInt = 25
    """H, steps of a plan."""
    num_candidates: PositiveInt = 400
    """N, sequences drawn in the first iteration."""
    num_elites: SeveralInt = 10
    """K, the best, which fit the next distribution."""
    iterations: PositiveInt = 3
    """Refits."""
    init_std: PositiveFloat = 0.5
    """Standard deviation of the first candidates, in units of the action range [-1, 1]."""
    momentum: HalfOpenUnitInterval = 0.1
    """Share of the old mean and standard deviation that a refit keeps."""
    noise_beta: NonNegativeFloat = 2.0
    """Exponent of the noise's spectrum; 0: white noise."""
    decay: Annotated[float, Rule("a number >= 1", lambda value: value >= 1)] = 1.25
    """Iteration i draws `N / decay^i` candidates, at least 2 K."""
    kept_elites: ClosedUnitInterval = 0.3
    """Share of the elites that are candidates of the next iteration and of the next step again."""

    def __post_init__(self) -> None:
        half = f"an integer > 1 and at most half of num_candidates={self.num_candidates}"
        require(2 * self.num_elites <= self.num_candidates, "model.planner.num_elites", self.num_elites, half)

    @property
    def num_kept(self) -> int:
        """Elites kept."""
        return int(self.kept_elites * self.num_elites)

    def start(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Tensor:
        """Zeros `[B, 1 + kept, H, A]`: the mean, then elites."""
        return torch.zeros(batch_size, 1 + self.num_kept, self.horizon, action_dim, device=device)

    def draws(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """Draws the noise of each iteration, fewer candidates each time."""
        for i in range(self.iterations):
            count = max(int(self.num_candidates / self.decay**i), 2 * self.num_elites)
            noise = coloured_noise((batch_size, count, action_dim), self.horizon, self.noise_beta, device)
            yield noise.transpose(2, 3)

    @torch.no_grad()
    def search(self, objective: Objective, draws: Iterable[Tensor], memory: Tensor) -> Search:
        """Refits, with elites of before among the candidates; the plan is the best candidate of all iterations."""
        mean, kept, iterations = memory[:, 0], memory[:, 1:], 0
        std = torch.full_like(mean, self.init_std)
        plan, top = mean, mean.new_full((len(mean),), -torch.inf)
        value = variance = torch.full_like(top, torch.nan)
        for z in draws:
            iterations += 1
            candidates = torch.cat([(mean[:, None] + std[:, None] * z).clamp(-1.0, 1.0), kept], 1)
            if iterations == self.iterations:
                candidates = torch.cat([candidates, mean[:, None]], 1)
            best = evaluate(objective, candidates).topk(self.num_elites, dim=1)
            elites = candidates.take_along_dim(best.indices[:, :, None, None], dim=1)
            better = best.values[:, 0] > top
            plan = torch.where(better[:, None, None], elites[:, 0], plan)
            top = torch.where(better, best.values[:, 0], top)
            of_elites, fitted = torch.var_mean(elites, dim=1, correction=0)
            mean = torch.lerp(fitted, mean, self.momentum)
            std = torch.lerp(of_elites.sqrt(), std, self.momentum)
            kept, value, variance = elites[:, : self.num_kept], best.values.mean(1), of_elites.mean((1, 2))
        return Search(plan, torch.cat([mean[:, None], kept], 1), value, variance, iterations)


def coloured_noise(shape: tuple[int, ...], steps: int, beta: float, device: torch.device | None = None) -> Tensor:
    """Normal noise `[*shape, steps]` of variance 1 whose power spectrum falls as `f^-beta` (Timmer and Koenig 1995)."""
    frequencies = torch.fft.rfftfreq(steps, device=device)
    amplitude = frequencies.clamp(min=1.0 / steps) ** (-0.5 * beta)
    real, imaginary = torch.randn(2, *shape, len(frequencies), device=device)
    # The mean and, of an even number of steps, the highest frequency have no phase: all their power is real.
    edges = torch.zeros(len(frequencies), dtype=torch.bool, device=device)
    edges[0] = True
    edges[-1] = edges[-1] | (steps % 2 == 0)
    real = torch.where(edges, 2.0**0.5 * real, real) * amplitude
    imaginary = torch.where(edges, 0.0, imaginary) * amplitude
    power = torch.where(edges, 2.0, 4.0) * amplitude.square()
    return torch.fft.irfft(torch.complex(real, imaginary), steps) * (steps / power.sum().sqrt())
