"""CMA-ES as the step of an update (Hansen, arXiv 1604.00772), by the package `cma`.

A checkpoint holds where the search has begun, its seed and every loss that it has been told; a resumed run draws the
same candidates and tells the same losses again, which ends in the same state, bit for bit, and runs no pickled code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cma
import numpy as np
import torch
from torch import Tensor, nn

from lit_mbrl.training.optim import PopulationOptimizer

_SEEDS = 2**24  # what float32, in which torch keeps an optimiser's state, holds exactly


class CMAES(PopulationOptimizer):
    """Minimises a loss of all parameters together, without gradients; they are the mean of the search.

    Args:
        parameters: trained parameters, n numbers.
        lr: standard deviation `sigma` of the first candidates.
        eps: unused; every update's step has one.
        population: P, candidates of a generation.
        weight_decay: penalty of the mean squared weight.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.1,
        eps: float = 0.0,
        population: int = 64,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.population, self.weight_decay = population, weight_decay
        self._search: cma.CMAEvolutionStrategy | None = None
        self._asked: list[np.ndarray] = []

    @property
    def _own(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return self.state[self.parameters()[0]]

    def _flat(self) -> Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters()])

    def _begin(self) -> cma.CMAEvolutionStrategy:
        """Returns the search where it is: from its beginning through every generation so far."""
        if "told" not in self._own:
            start, sigma = self._flat().clone(), float(self.param_groups[0]["lr"])
            seed = torch.randint(_SEEDS, ()).to(start)
            told = start.new_zeros(0, self.population)
            self._own.update(start=start, sigma=torch.tensor(sigma), seed=seed, told=told)
        own, generator = self._own, np.random.default_rng(int(self._own["seed"]))
        options = {
            "popsize": self.population,
            "seed": np.nan,  # leaves numpy's global state alone
            "randn": lambda *shape: generator.standard_normal(shape),
            "verbose": -9,
            "maxiter": np.inf,
        }
        search = cma.CMAEvolutionStrategy(own["start"].double().cpu().numpy(), float(own["sigma"]), options)
        for losses in own["told"]:
            self._tell(search, search.ask(), losses)
        return search

    @staticmethod
    def _tell(search: cma.CMAEvolutionStrategy, candidates: list[np.ndarray], losses: Tensor) -> None:
        if losses.isfinite().all():  # a generation with other losses has been left out
            search.tell(candidates, losses.double().tolist())

    @torch.no_grad()
    def ask(self) -> Tensor:
        """See `PopulationOptimizer.ask`."""
        if self._search is None:
            self._search = self._begin()
        self._asked = self._search.ask()
        return torch.from_numpy(np.stack(self._asked)).to(self._flat())

    @torch.no_grad()
    def tell(self, losses: Tensor) -> dict[str, float]:
        """See `PopulationOptimizer.tell`.

        Returns:
            | metric | |
            |---|---|
            | `best`, `mean`, `worst` | lowest, mean and highest loss of the generation |
            | `sigma` | step size |
            | `generation` | generations so far |
        """
        search = self._search
        assert search is not None  # `ask` comes first
        metrics = {"best": losses.min().item(), "mean": losses.mean().item(), "worst": losses.max().item()}
        penalty = np.square(np.stack(self._asked)).mean(1)
        told = losses.float().cpu() + self.weight_decay * torch.from_numpy(penalty).float()
        self._own["told"] = torch.cat([self._own["told"], told.to(self._own["told"])[None]])
        self._tell(search, self._asked, told)
        mean = torch.from_numpy(search.mean.copy()).to(self._flat())
        offset = 0
        for parameter in self.parameters():
            parameter.copy_(mean[offset : offset + parameter.numel()].view_as(parameter))
            offset += parameter.numel()
        return metrics | {"sigma": float(search.sigma), "generation": float(len(self._own["told"]))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(state_dict)
        self._search = None
