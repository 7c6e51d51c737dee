"""Model predictive path integral control: candidates around the last plan, averaged by the exponential of their return.

Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning"; the noise is filtered over
time as in PDDM (Nagabandi et al. 2019, arXiv 1909.11652):

    n_t = beta z_t + (1 - beta) n_{t-1},  u_t = mean_t + sigma n_t,  w_i proportional to exp(R_i / lambda)
    mean <- sum_i w_i u_i

Williams et al. add the cost of leaving the mean, `lambda mean^T Sigma^-1 n`, to each candidate's; PDDM, and we, do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mbrl.planners.base import Objective, Planner, Search, evaluate
from lit_mbrl.utils.errors import positive, require


@dataclass(frozen=True)
class MPPI(Planner):
    """Averages candidates by the exponential of their return.

    Args:
        horizon: H, steps of a plan.
        num_candidates: N, sequences tried per iteration.
        iterations: averages; the methods' own number is 1, since they go on from the last plan.
        std: standard deviation sigma of the noise, in units of the action range [-1, 1].
        temperature: lambda, in units of the return.
        smoothing: beta, weight of the new noise at each step; 1: white noise.

    Raises:
        OptionError: if a value is out of range.
    """

    horizon: int = 25
    num_candidates: int = 1000
    iterations: int = 1
    std: float = 0.5
    temperature: float = 1.0
    smoothing: float = 0.7

    def __post_init__(self) -> None:
        for name in ("horizon", "num_candidates", "iterations"):
            require(getattr(self, name) > 0, f"model.planner.{name}", getattr(self, name), "an integer > 0")
        positive("model.planner.std", self.std)
        positive("model.planner.temperature", self.temperature)
        require(0.0 < self.smoothing <= 1.0, "model.planner.smoothing", self.smoothing, "a number > 0, at most 1")

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
