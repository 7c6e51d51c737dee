"""Policies: the tanh-Gaussian of SAC and the deterministic policy of DDPG and TD3.

Legend: `O` observation, `A` action; actions lie in `[-1, 1]^A`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP
from lit_mbrl.utils.errors import require

LogStdSquash = Literal["tanh", "clamp"]


class TanhGaussianActor(nn.Module):
    """`u = tanh(mean(x) + std(x) * noise)`, noise ~ N(0, 1): SAC's policy, SVG section 3.2 (arXiv 2008.12775v3).

    | method | in | out |
    |---|---|---|
    | `forward` | observation `[..., O]` | mean, log_std `[..., A]`, both before the tanh |
    | `sample` | observation `[..., O]`, noise `[..., A]` | action `[..., A]`, log-probability `[..., 1]` |
    | `action` | observation `[..., O]`, noise `[..., A]` | action `[..., A]` |
    | `mode` | observation `[..., O]` | action `[..., A]` |

    Args:
        log_std_bounds: lowest and highest log standard deviation. The default is SVG's table 3.
        log_std_squash: how the raw output is brought into the bounds. `"tanh"`: affine map of its tanh, which keeps
            a gradient everywhere (SVG's public code). `"clamp"`: cut off, no gradient outside (original SAC).

    Raises:
        OptionError: the bounds are not increasing, or the squash is unknown.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        log_std_squash: LogStdSquash = "tanh",
    ) -> None:
        super().__init__()
        low, high = log_std_bounds
        require(low < high, "model.log_std_bounds", list(log_std_bounds), "a lower and a higher bound")
        require(log_std_squash in ("tanh", "clamp"), "model.log_std_squash", log_std_squash, "tanh or clamp")
        self.log_std_bounds = log_std_bounds
        self.log_std_squash = log_std_squash
        self.net = MLP(observation_dim, hidden, 2 * action_dim)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.net(observation).chunk(2, dim=-1)  # [..., 2A] -> 2 x [..., A]
        low, high = self.log_std_bounds
        if self.log_std_squash == "clamp":
            return mean, raw.clamp(low, high)
        return mean, low + 0.5 * (high - low) * (torch.tanh(raw) + 1.0)

    def sample(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised: differentiable in the parameters and in `observation`, a function of the given noise."""
        mean, log_std = self(observation)
        pre_tanh = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), finite where 1 - tanh(x)^2 rounds to zero.
        log_jacobian = 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh))
        log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return torch.tanh(pre_tanh), (log_normal - log_jacobian).sum(-1, keepdim=True)

    def action(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The action of `sample` alone, for acting: half the operations."""
        mean, log_std = self(observation)
        return torch.tanh(mean + log_std.exp() * noise)

    def mode(self, observation: Tensor) -> Tensor:
        """`tanh(mean)`, the action of evaluation (the median, not the mode, of the squashed density)."""
        return torch.tanh(self(observation)[0])


class DeterministicActor(nn.Module):
    """`u = tanh(mlp(x))`: observation `[..., O]` to action `[..., A]`, the policy of DDPG and TD3."""

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = MLP(observation_dim, hidden, action_dim)

    def forward(self, observation: Tensor) -> Tensor:
        return torch.tanh(self.net(observation))
