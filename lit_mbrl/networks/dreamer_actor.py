"""The policy of Dreamer v1: a tanh-Gaussian that starts wide, and whose mean cannot run away.

Hafner et al. 2019 (arXiv 1912.01603v3), section 3 and appendix A; the constants are the public code's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP


class DreamerActor(nn.Module):
    """`u = tanh(m + s * noise)`, `m = 5 tanh(raw_m / 5)`, `s = softplus(raw_s + c) + 1e-4`.

    `c` makes the standard deviation `init_std` where `raw_s` is 0, so that a new policy covers all actions.

    Args:
        in_features: F, of the model's state.
        action_dim: A.
        hidden: hidden layers, with ELU.
        init_std: standard deviation before the tanh of a policy that knows nothing.
        mean_scale: bound of the mean before the tanh.
        num_modes: draws among which `mode` looks for the most probable one.
    """

    mode_noise: Tensor

    def __init__(
        self,
        in_features: int,
        action_dim: int,
        hidden: Sequence[int],
        init_std: float = 5.0,
        mean_scale: float = 5.0,
        num_modes: int = 100,
    ) -> None:
        super().__init__()
        self.net = MLP(in_features, hidden, 2 * action_dim, nn.ELU)
        self.raw_std = math.log(math.expm1(init_std))
        self.mean_scale = mean_scale
        # Part of the weights, so that the deterministic action is a function of the state: the code draws anew.
        self.register_buffer("mode_noise", torch.randn(num_modes, action_dim))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[..., F]` to mean and standard deviation `[..., A]`, both before the tanh."""
        mean, raw_std = self.net(feature).chunk(2, dim=-1)  # [..., 2A] -> 2 x [..., A]
        return self.mean_scale * torch.tanh(mean / self.mean_scale), F.softplus(raw_std + self.raw_std) + 1e-4

    def action(self, feature: Tensor, noise: Tensor) -> Tensor:
        """The reparameterised action `[..., A]` of standard normal noise `[..., A]`."""
        mean, std = self(feature)
        return torch.tanh(mean + std * noise)

    def mode(self, feature: Tensor) -> Tensor:
        """The most probable of `num_modes` actions, `[..., A]`: the squashed density has no mode in closed form."""
        mean, std = self(feature)
        noise = self.mode_noise.view(-1, *[1] * (mean.ndim - 1), mean.shape[-1])
        pre_tanh = mean + std * noise  # [num_modes, ..., A]
        log_jacobian = 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh))
        log_prob = (-0.5 * noise.square() - log_jacobian).sum(-1, keepdim=True)  # up to terms that all share
        best = log_prob.argmax(0, keepdim=True).expand(1, *pre_tanh.shape[1:])
        return torch.tanh(pre_tanh.gather(0, best).squeeze(0))


class DeterministicLatentActor(nn.Module):
    """`u = tanh(m)`, `m = 5 tanh(mlp(feature) / 5)`: `DreamerActor` without its noise, which its interface ignores.

    Without the bound m went beyond 9, where tanh is 1 in float32 and has no gradient, before the model had learned
    anything, and the policy did not leave its corner again.

    Args:
        mean_scale: bound of m.
    """

    def __init__(self, in_features: int, action_dim: int, hidden: Sequence[int], mean_scale: float = 5.0) -> None:
        super().__init__()
        self.net = MLP(in_features, hidden, action_dim, nn.ELU)
        self.mean_scale = mean_scale

    def action(self, feature: Tensor, noise: Tensor) -> Tensor:
        """The action `[..., A]` at features `[..., F]`."""
        return self.mode(feature)

    def mode(self, feature: Tensor) -> Tensor:
        """The action `[..., A]` at features `[..., F]`."""
        return torch.tanh(self.mean_scale * torch.tanh(self.net(feature) / self.mean_scale))
