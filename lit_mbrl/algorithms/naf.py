"""NAF: Q-learning for continuous actions, by an action-value whose maximum is known.

Gu et al. 2016, "Continuous Deep Q-Learning with Model-based Acceleration" (arXiv 1603.00748v1), algorithm 1: the
action-value is `Q(x, u) = V(x) - 1/2 (u - mu(x))^T P(x) (u - mu(x))`, so `mu` is the greedy action and `V` its value,
and regression towards `r + gamma V'(x')` is Q-learning. `P = L L^T` with a triangular `L`.

Readings and departures:

- `mu` is the tanh of its network's output, as in public code; the paper's actions are not bounded by the network.
- Of the target network `V'` alone is read, so only that is kept.
- Batch normalization, one of the paper's most sensitive choices, is left out; `normalize_observations` scales inputs.
- A termination has no value after it, which the paper does not say.
- The exploration by precision (section 8.2) draws the increments of the Ornstein-Uhlenbeck process from `N(0, c P^-1)`.
  The paper adapts `c` by a heuristic that it does not print; `precision_scale: null` chooses it for each state so that
  the mean variance is that of `exploration_sigma`. The paper uses the precision after 50 000 steps: `precision_starts`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import precision_noise, precision_scale, q_loss, quadratic_advantage, td_target
from lit_mbrl.networks import NormalizedAdvantage
from lit_mbrl.networks.exploration import GaussianNoise, OrnsteinUhlenbeckNoise
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, Sizes

Noise = OrnsteinUhlenbeckNoise | GaussianNoise


@options
class NAF(Algorithm):
    """An action-value that is quadratic in the action. Needs `callbacks.SoftTargetUpdate`."""

    paper = "Gu et al. 2016, arXiv 1603.00748"
    takes_relabelled = True

    hidden_sizes: Sizes = (200, 200)
    """Hidden layers of the networks of value, mean and precision."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lr: PositiveFloat = 1e-3
    """Adam's learning rate."""
    exploration: Literal["ou", "gaussian", "precision"] = "ou"
    """Noise on collected actions: Ornstein-Uhlenbeck (`"ou"`), independent (`"gaussian"`), or Ornstein-Uhlenbeck whose
    increments have the covariance `c P^-1` (`"precision"`)."""
    exploration_sigma: NonNegativeFloat = 0.3
    """The noise's standard deviation, of the increments of Ornstein-Uhlenbeck noise, for actions in [-1, 1]."""
    ou_theta: ClosedUnitInterval = 0.15
    """The Ornstein-Uhlenbeck noise's rate of return; 1: it is independent."""
    precision_scale: PositiveFloat | None = None
    """`c`; null: for each state so that the mean variance over the action's dimensions is `exploration_sigma^2`."""
    precision_starts: NonNegativeInt = 0
    """Environment steps until which exploration by precision is `"ou"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration_noise = self.make_noise()

    def make_noise(self) -> Noise:
        """Returns the noise of episodes that are about to begin."""
        if self.exploration == "gaussian":
            return GaussianNoise(self.exploration_sigma)
        return OrnsteinUhlenbeckNoise(self.exploration_sigma, self.ou_theta)

    def build(self, spec: Any) -> None:
        self.critic = NormalizedAdvantage(spec.observation_dim, spec.action_dim, self.hidden_sizes)
        self.value_target = copy.deepcopy(self.critic.value)

    def updates(self) -> Iterator[Update]:
        """One gradient step of the action-value: algorithm 1."""
        yield Update("critic", self.critic, self.critic_loss, self.lr)

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.critic.value, self.value_target

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        return self.critic.mean(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.noisy_action(observation, is_init, self.exploration_noise)

    def noisy_action(self, observation: Tensor, is_init: Tensor, noise: Noise) -> Tensor:
        """The greedy action `[N, A]` with the next step of a noise.

        Args:
            observation: as the networks see it, `[N, O]`.
            is_init: whether an episode begins, `[N, 1]`.
            noise: `make_noise`'s.
        """
        mean = self.critic.mean(observation)
        if self.exploration != "precision" or self.env_steps < self.precision_starts:
            return noise(mean, is_init)
        factor = self.critic.factor(observation)
        scale = self.precision_scale or precision_scale(factor, self.exploration_sigma)
        return noise(mean, is_init, precision_noise(torch.randn_like(mean), factor, scale))

    # ------------------------------------------------------------------ loss
    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared temporal-difference error: the loss of algorithm 1."""
        following = batch["next"]
        with torch.no_grad():
            next_value = self.value_target(following["observation"])
        target = td_target(following["reward"], following["terminated"], next_value, self.gamma)
        value, mean, factor = self.critic(batch["observation"])
        advantage = quadratic_advantage(batch["action"], mean, factor)
        q = value + advantage
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        self.record("q/advantage", advantage.mean)
        self.record("q/precision", lambda: factor.square().sum((-2, -1)).mean() / factor.shape[-1])
        return q_loss(q.unsqueeze(0), target).mean()
