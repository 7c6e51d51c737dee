"""A diagonal Gaussian whose mean and standard deviation depend on the observation: a density, not a policy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP


class DiagonalGaussian(nn.Module):
    """Observation `[..., O]` to mean and log standard deviation `[..., A]`.

    Args:
        log_std_bounds: the log standard deviation is cut off there, so that a state seen once has no density without
            bounds.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
    ) -> None:
        super().__init__()
        self.log_std_bounds = log_std_bounds
        self.net = MLP(observation_dim, hidden, 2 * action_dim)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.net(observation).chunk(2, dim=-1)  # [..., 2A] -> 2 x [..., A]
        return mean, raw.clamp(*self.log_std_bounds)
