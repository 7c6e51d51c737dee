"""Critics: ensembles of state-action values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP


class QEnsemble(nn.Module):
    """`num` independent state-action values; two of them are the double-Q critic of SAC and TD3.

    Members are separate modules: batched products gained nothing at these sizes on a CPU.

    Args:
        num: number `E` of members.
    """

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int], num: int = 2) -> None:
        super().__init__()
        self.members = nn.ModuleList(MLP(observation_dim + action_dim, hidden, 1) for _ in range(num))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Observation `[..., O]` and action `[..., A]` to values `[E, ..., 1]`."""
        features = torch.cat([observation, action], dim=-1)  # [..., O + A]
        return torch.stack([member(features) for member in self.members])

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """The first member's values `[..., 1]`; the others are not asked."""
        return self.members[0](torch.cat([observation, action], dim=-1))
