"""Model predictive path integral control: candidates around the last plan, averaged by the exponential of their return.

Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning"; the noise is filtered over
time as in PDDM (Nagabandi et al. 2019, arXiv 1909.11652):

    n_t = beta z_t + (1 - beta) n_{t-1},  u_t = mean_t + sigma n_t,  w_i proportional to exp(R_i / lambda)
    mean <- sum_i w_i u_i

Williams et al. add the cost of leaving the mean, `lambda mean^T Sigma^-1 n`, to each candidate's; PDDM, and we, do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from lit_mbrl.planners.base import Objective, Planner, Search, evaluate
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveFloat, PositiveInt, Rule


@options(frozen=True, eq=True, repr=True)
class MPPI(Planner):
    """Averages candidates by the exponential of their return."""

    horizon: PositiveInt = 25
    """H, steps of a plan."""
    num_candidates: PositiveInt = 1000
    """N, sequences tried per iteration."""
    iterations: PositiveInt = 1
    """Averages; the methods' own number is 1, since they go on from the last plan."""
    std: PositiveFloat = 0.5
    """Standard deviation sigma of the noise, in units of the action range [-1, 1]."""
    temperature: PositiveFloat = 1.0
    """Lambda, in units of the return."""
    smoothing: Annotated[float, Rule("a number > 0, at most 1", lambda value: 0 < value <= 1)] = 0.7
    """Beta, weight of the new noise at each step; 1: white noise."""

    def draws(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """Draws the filtered noise of each iteration."""
        for _ in range(self.iterations):
            noise = torch.randn(batch_size, self.num_candidates, self.horizon, action_dim, device=device)
            steps = [self.smoothing * noise[:, :, 0]]
            for z in noise[:, :, 1:].unbind(2):
                steps.append(self.smoothing * z + (1.0 - self.smoothing) * steps[-1])
            yield torch.stack(steps, 2)

    @torch.no_grad()
    def search(self, objective: Objective, draws: Iterable[Tensor], memory: Tensor) -> Search:
        """Averages the candidates as often as there are draws; an average of candidates that all lose is the mean."""
        mean, iterations = memory[:, 0], 0
        value, variance = mean.new_full((len(mean),), torch.nan), mean.new_full((len(mean),), torch.nan)
        for z in draws:
            iterations += 1
            candidates = (mean[:, None] + self.std * z).clamp(-1.0, 1.0)
            returns = evaluate(objective, candidates)
            best = returns.amax(1, keepdim=True)
            # With nothing but losers all of them weigh the same, and none moves the mean.
            weights = torch.where(best.isfinite(), returns - best, 0.0).div(self.temperature).softmax(1)
            each = weights[:, :, None, None]
            fitted = torch.where(best.isfinite()[:, :, None], (each * candidates).sum(1), mean)
            variance = (each * (candidates - fitted[:, None]).square()).sum(1).mean((1, 2))
            value = (weights * torch.where(weights > 0, returns, 0.0)).sum(1)
            mean = fitted
        return Search(mean, mean.unsqueeze(1), value, variance, iterations)
