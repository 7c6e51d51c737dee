"""Stochastic policies of on-policy algorithms: a Gaussian and a categorical one, whose density and entropy are known.

Legend: `O` features of an observation, `A` action. Both speak the same verbs:

| method | in | out |
|---|---|---|
| `sample` | features `[N, O]` | an action drawn from the policy, `[N, A]` float or `[N]` int64 |
| `mode` | features `[N, O]` | its most probable action |
| `entropy` | features `[..., O]` | entropy in nats, `[..., 1]` |
| `log_prob_entropy` | features `[..., O]`, action | log-probability and entropy in nats, `[..., 1]` each |
| `distribution` | features `[..., O]` | numbers that describe the distribution, `[..., P]` |
| `kl` | `distribution` of a policy that acted, features `[..., O]` | divergence KL(acted, this) in nats, `[..., 1]` |
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP, orthogonal_

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def orthogonal_mlp(
    in_features: int, hidden: Sequence[int], out_features: int, gain: float, activation: type[nn.Module] = nn.Tanh
) -> MLP:
    """An MLP with orthogonal weights, hidden ones times sqrt(2) and the last times `gain`, and zero biases."""
    net = orthogonal_(MLP(in_features, hidden, out_features, activation), math.sqrt(2.0))
    orthogonal_(net[-1], gain)
    return net


class GaussianActor(nn.Module):
    """`u ~ N(mean(x), diag(std^2))`, the standard deviation a parameter of its own that no state changes.

    The density is that of the action before the environment cuts it to [-1, 1], as in TRPO and PPO.

    Args:
        init_log_std: log standard deviation at the start.
    """

    def __init__(self, features: int, action_dim: int, hidden: Sequence[int], init_log_std: float = 0.0) -> None:
        super().__init__()
        self.mean = orthogonal_mlp(features, hidden, action_dim, gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), init_log_std))

    def sample(self, features: Tensor) -> Tensor:
        mean = self.mean(features)
        return mean + self.log_std.exp() * torch.randn_like(mean)

    def mode(self, features: Tensor) -> Tensor:
        """The mean, cut to [-1, 1]."""
        return self.mean(features).clamp(-1.0, 1.0)

    def log_prob_entropy(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        noise = (action - self.mean(features)) * (-self.log_std).exp()
        entropy = self.entropy(features)  # sum of log_std + (1 + log 2 pi) / 2
        return 0.5 * (noise.shape[-1] - noise.square().sum(-1, keepdim=True)) - entropy, entropy

    def entropy(self, features: Tensor) -> Tensor:
        """The same in all states."""
        entropy = self.log_std.sum() + len(self.log_std) * (0.5 + _HALF_LOG_2PI)
        return entropy.expand(*features.shape[:-1], 1)

    def distribution(self, features: Tensor) -> Tensor:
        """Mean and log standard deviation, `[..., 2 A]`."""
        mean = self.mean(features)
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)

    def kl(self, acted: Tensor, features: Tensor) -> Tensor:
        mean, log_std = acted.chunk(2, -1)
        # log(s / s_a) + (s_a^2 + (m - m_a)^2) / (2 s^2) - 1/2, without the cancellation where policies nearly agree.
        log_ratio = log_std - self.log_std
        distance = (self.mean(features) - mean) * (-self.log_std).exp()
        terms = 0.5 * (torch.expm1(2.0 * log_ratio) + distance.square()) - log_ratio
        return terms.sum(-1, keepdim=True)


class CategoricalActor(nn.Module):
    """`u ~ softmax(logits(x))` over `action_dim` actions."""

    def __init__(self, features: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.logits = orthogonal_mlp(features, hidden, action_dim, gain=0.01)

    def sample(self, features: Tensor) -> Tensor:
        logits = self.logits(features)
        # The largest of independent Gumbel variables around the logits is drawn from their softmax.
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)

    def mode(self, features: Tensor) -> Tensor:
        return self.logits(features).argmax(-1)

    def log_prob_entropy(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = self.logits(features).log_softmax(-1)
        return log_probs.gather(-1, action.unsqueeze(-1)), _entropy(log_probs)

    def entropy(self, features: Tensor) -> Tensor:
        return _entropy(self.logits(features).log_softmax(-1))

    def distribution(self, features: Tensor) -> Tensor:
        """Log-probabilities, `[..., A]`."""
        return self.logits(features).log_softmax(-1)

    def kl(self, acted: Tensor, features: Tensor) -> Tensor:
        return (acted.exp() * (acted - self.distribution(features))).sum(-1, keepdim=True)


class ActorCritic(nn.Module):
    """A categorical policy and a value, linear in the features of an encoder that they share.

    Args:
        encoder: of observations.
        features: that it returns.
        actions: A.
    """

    def __init__(self, encoder: nn.Module, features: int, actions: int) -> None:
        super().__init__()
        self.encoder, self.actor = encoder, CategoricalActor(features, actions, [])
        self.critic = orthogonal_mlp(features, [], 1, gain=1.0)


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1, keepdim=True)
