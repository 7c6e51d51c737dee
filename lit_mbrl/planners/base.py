"""The verbs of a planner: a search over sequences of vectors, for B environments at once, each with its own candidates.

    memory --search(objective, draws)--> Search --shift(memory)--> memory of the next step

Legend: `B` environments, `N` candidates, `K` elites, `H` steps of a plan, `A` action, `M` sequences kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

# Maps candidates [B, N, H, A] to their returns [B, N].
Objective = Callable[[Tensor], Tensor]


class Search(NamedTuple):
    """Result of a search.

    | field | shape | |
    |---|---|---|
    | `plan` | `[B, H, A]` | the sequence whose first action is taken |
    | `memory` | `[B, M, H, A]` | what the next search may begin with, once it has been shifted |
    | `elite_return` | `[B]` | mean return of the last iteration's elites (MPPI: of all candidates, by their weights) |
    | `elite_variance` | `[B]` | their variance, mean over steps and actions |
    | `iterations` | | iterations until every environment had stopped |
    """

    plan: Tensor
    memory: Tensor
    elite_return: Tensor
    elite_variance: Tensor
    iterations: int


class Planner:
    """Searches for the sequence with the highest return; an environment's plan does not depend on the others'.

    Attributes:
        horizon: H.
        num_candidates: N of the first iteration.
        iterations: at most.
        needs_gradient: whether it searches `planners.ModelObjective`s alone, since it differentiates the model.
    """

    section: ClassVar[str] = "model.planner"
    needs_gradient: ClassVar[bool] = False
    horizon: int
    num_candidates: int
    iterations: int

    def start(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Tensor:
        """Returns the memory at the beginning of an episode, `[B, M, H, A]`: zeros."""
        return torch.zeros(batch_size, 1, self.horizon, action_dim, device=device)

    def draws(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """Draws the noise of one iteration after the other, `[B, N, H, A]` with variance 1 or less."""
        raise NotImplementedError

    def search(self, objective: Objective, draws: Iterable[Tensor], memory: Tensor) -> Search:
        """Searches from where the memory says.

        Args:
            objective: a candidate whose return is not a number loses.
            draws: what `draws` yields.
            memory: of `start` or `shift`.
        """
        raise NotImplementedError

    def shift(self, memory: Tensor) -> Tensor:
        """Returns the memory after the first action has been taken: sequences without it, with 0 as their last."""
        return torch.cat([memory[:, :, 1:], torch.zeros_like(memory[:, :, :1])], 2)


def evaluate(objective: Objective, candidates: Tensor) -> Tensor:
    """Returns of candidates `[B, N]`; what is not a number is minus infinity."""
    return objective(candidates).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
