"""Critics: ensembles of state-action values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.ensemble import EnsembleMLP
from lit_mbrl.networks.mlp import MLP


class QEnsemble(nn.Module):
    """`num` independent state-action values; two of them are the double-Q critic of SAC and TD3.

    Members are separate modules: batched products gained nothing at these sizes on a CPU.

    Args:
        num: number `E` of members.
        outputs: numbers of a value, 1 but for values that are vectors.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, hidden: Sequence[int], num: int = 2, outputs: int = 1
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(MLP(observation_dim + action_dim, hidden, outputs) for _ in range(num))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Observation `[..., O]` and action `[..., A]` to values `[E, ..., outputs]`."""
        features = torch.cat([observation, action], dim=-1)  # [..., O + A]
        return torch.stack([member(features) for member in self.members])

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """The first member's values `[..., outputs]`; the others are not asked."""
        return self.members[0](torch.cat([observation, action], dim=-1))


class BatchedQEnsemble(nn.Module):
    """`L` members that learn from different data; a member has `K` state-action values, of which the least counts.

    All `K L` networks are in one product per layer. `K = 1` is a member as DDPG's critic, `K = 2` as SAC's.

    Args:
        num: number `L` of members.
        twins: number `K` of state-action values of each.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, hidden: Sequence[int], num: int = 4, twins: int = 1
    ) -> None:
        super().__init__()
        self.num, self.twins = num, twins
        inputs = observation_dim + action_dim
        self.networks = EnsembleMLP(twins * num, inputs, hidden, 1, "relu", initialization="uniform")

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Each member's values `[L, ..., 1]` at the same observations `[..., O]` and actions `[..., A]`."""
        features = torch.cat([observation, action], dim=-1)  # [..., O + A]
        q = self.networks(features.reshape(-1, features.shape[-1]))  # [K L, rows, 1]
        return q.reshape(self.twins, self.num, *features.shape[:-1], 1).amin(0)

    def of_members(self, observation: Tensor, action: Tensor) -> Tensor:
        """All values `[K, L, B, 1]` of each member at its own observations `[L, B, O]` and actions `[L, B, A]`."""
        features = torch.cat([observation, action], dim=-1).repeat(self.twins, 1, 1)
        return self.networks(features).unflatten(0, (self.twins, self.num))
