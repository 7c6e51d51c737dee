"""A mixture density network (Bishop 1994) over hidden states, given a hidden state: MaxEnt Dreamer section 4.1.

Svidchenko and Shpilman 2021 (arXiv 2112.01195v1): 8 heads, hidden size 256. The number of hidden layers is not given;
ours are two, with ELU as everywhere in Dreamer. Nor is a least standard deviation: ours is the RSSM's, 0.1, because a
component on a single state would have a density without bounds.

Legend: `N` conditions, `n` states asked of each, `K` components, `F` features of a state.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP


class Mixture(NamedTuple):
    """Diagonal Gaussians: log weights `[N, K]`, means and standard deviations `[N, K, F]`."""

    log_weight: Tensor
    mean: Tensor
    std: Tensor

    def log_prob(self, state: Tensor) -> Tensor:
        """`log P(s)` of states `[N, n, F]`: `[N, n, 1]`.

        The quadratic form is expanded, so that it is two matrix products over F instead of a tensor `[N, n, K, F]`,
        which would hold a hundred million numbers at the paper's sizes. The expansion is in float64: its terms grow
        with `(s / std)^2` and cancel where a state is near a component, which in float32 would cost tenths of a nat.
        """
        with torch.autocast(state.device.type, enabled=False):
            x, mean, std = (value.double() for value in (state, self.mean, self.std))
            precision = std.square().reciprocal()
            scaled = mean * precision
            quadratic = torch.baddbmm((mean * scaled).sum(-1).unsqueeze(1), x.square(), precision.transpose(1, 2))
            quadratic = torch.baddbmm(quadratic, x, scaled.transpose(1, 2), alpha=-2.0)  # [N, n, K]
            constant = self.std.log().sum(-1, dtype=x.dtype) + 0.5 * math.log(2.0 * math.pi) * state.shape[-1]  # [N, K]
            log_prob = (self.log_weight - constant).unsqueeze(1) - 0.5 * quadratic
            return log_prob.logsumexp(-1, keepdim=True).to(self.mean.dtype)

    def sample(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """States `[N, F]`: the component by `uniform [N, 1]` in [0, 1), then the Gaussian by standard normal `noise`.

        The path through the Gaussian is differentiable; the choice of the component is not.
        """
        edges = self.log_weight.exp().cumsum(-1)[:, :-1]  # [N, K - 1]
        index = (uniform >= edges).sum(-1).view(-1, 1, 1).expand(-1, 1, noise.shape[-1])
        return (self.mean.gather(1, index) + self.std.gather(1, index) * noise.unsqueeze(1)).squeeze(1)

    def component_samples(self, noise: Tensor) -> Tensor:
        """A state of every component, `[N, K, F]`, from noise `[N, K, F]`; weighed by `log_weight`, samples of all.

        Differentiable in everything, the weights of the components included.
        """
        return self.mean + self.std * noise


class MixtureDensityNetwork(nn.Module):
    """`P(s | condition)`: features `[N, F]` to a `Mixture` over features.

    Args:
        feature_dim: F.
        heads: K.
        hidden: hidden layers, with ELU.
        min_std: added to the softplus of every standard deviation.
    """

    def __init__(self, feature_dim: int, heads: int = 8, hidden: tuple[int, ...] = (256, 256), min_std: float = 0.1):
        super().__init__()
        self.heads, self.feature_dim, self.min_std = heads, feature_dim, min_std
        self.net = MLP(feature_dim, hidden, heads * (1 + 2 * feature_dim), nn.ELU)

    def forward(self, condition: Tensor) -> Mixture:
        """The mixture at conditions `[N, F]`."""
        sizes = [self.heads, self.heads * self.feature_dim, self.heads * self.feature_dim]
        logits, mean, raw = self.net(condition).split(sizes, dim=-1)
        shape = (self.heads, self.feature_dim)
        return Mixture(
            logits.log_softmax(-1), mean.unflatten(-1, shape), F.softplus(raw.unflatten(-1, shape)) + self.min_std
        )
