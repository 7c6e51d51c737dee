"""The networks of a normalized advantage function: value, mean and factor of the precision.

Legend: `O` observation, `A` action; actions lie in `[-1, 1]^A`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.actors import DeterministicActor
from lit_mbrl.networks.mlp import MLP


class NormalizedAdvantage(nn.Module):
    """Value `V`, mean `mu` and triangular factor `L` of `Q(x, u) = V(x) - 1/2 (u - mu)^T L L^T (u - mu)`.

    Each is a network of its own (Gu et al. 2016, arXiv 1603.00748v1, section 6).

    | module | in | out |
    |---|---|---|
    | `value` | observation `[..., O]` | `[..., 1]` |
    | `mean` | observation `[..., O]` | `[..., A]`, in [-1, 1]: the action of the largest value |
    | `factor` | observation `[..., O]` | `[..., A, A]`, see `TriangularFactor` |
    """

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.value = MLP(observation_dim, hidden, 1)
        self.mean = DeterministicActor(observation_dim, action_dim, hidden)
        self.factor = TriangularFactor(observation_dim, action_dim, hidden)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, mean and factor."""
        return self.value(observation), self.mean(observation), self.factor(observation)


class TriangularFactor(nn.Module):
    """Lower triangular matrix with a positive diagonal, the exponential of outputs of a network.

    Maps `[..., O]` to `[..., A, A]`.
    """

    places: Tensor

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.action_dim, entries = action_dim, action_dim * (action_dim + 1) // 2
        self.net = MLP(observation_dim, hidden, entries)
        # Which output stands at each place of the matrix; the first are the diagonal, and a zero follows the last.
        places = torch.full((action_dim, action_dim), entries)
        places.fill_diagonal_(0)
        places += torch.diag(torch.arange(action_dim))
        row, column = torch.tril_indices(action_dim, action_dim, -1)
        places[row, column] = torch.arange(action_dim, entries)
        self.register_buffer("places", places.flatten(), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        entries = self.net(observation)
        diagonal, below = entries[..., : self.action_dim].exp(), entries[..., self.action_dim :]
        entries = torch.cat([diagonal, below, torch.zeros_like(diagonal[..., :1])], -1)
        return entries.index_select(-1, self.places).unflatten(-1, (self.action_dim, self.action_dim))
