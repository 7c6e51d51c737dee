"""Deep deterministic policy gradient.

Lillicrap et al. 2015 (arXiv 1509.02971v6): the critic regresses `r + gamma Q'(x', mu'(x'))`, the actor ascends
`Q(x, mu(x))`; both have slowly following targets.

Departures: the action enters the critic at its first layer (the paper: at its second), and the critic has no weight
decay; both as in today's implementations. Noise is Ornstein-Uhlenbeck as in the paper, or Gaussian.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import dpg_loss, q_loss, td_target
from lit_mbrl.networks import DeterministicActor, QEnsemble
from lit_mbrl.networks.exploration import GaussianNoise, OrnsteinUhlenbeckNoise
from lit_mbrl.training.algorithm import Algorithm, Compile, Normalize, Update
from lit_mbrl.utils.errors import in_unit_interval, positive, positive_sizes, require


class DDPG(Algorithm):
    """One critic and a deterministic actor. Needs `callbacks.SoftTargetUpdate`.

    Args:
        hidden_sizes: hidden layers of actor and critic.
        gamma: discount.
        actor_lr: Adam's learning rate of the actor.
        critic_lr: of the critic.
        exploration: `"ou"` (the paper's) or `"gaussian"`.
        exploration_sigma: the noise's standard deviation, for actions in [-1, 1].
        ou_theta: the Ornstein-Uhlenbeck noise's rate of return.
        normalize_observations: see `Algorithm`.
        compile: see `Algorithm`.
        max_grad_norm: see `Algorithm`.
    """

    paper = "Lillicrap et al. 2015, arXiv 1509.02971"
    num_critics = 1

    def __init__(
        self,
        hidden_sizes: list[int] | None = None,
        gamma: float = 0.99,
        actor_lr: float = 1e-4,
        critic_lr: float = 1e-3,
        exploration: Literal["ou", "gaussian"] = "ou",
        exploration_sigma: float = 0.2,
        ou_theta: float = 0.15,
        normalize_observations: Normalize = False,
        compile: Compile = False,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(normalize_observations, compile, max_grad_norm)
        self.hidden_sizes = [256, 256] if hidden_sizes is None else list(hidden_sizes)
        positive_sizes("model.hidden_sizes", self.hidden_sizes)
        in_unit_interval("model.gamma", gamma)
        positive("model.actor_lr", actor_lr)
        positive("model.critic_lr", critic_lr)
        require(exploration_sigma >= 0, "model.exploration_sigma", exploration_sigma, "a number >= 0")
        in_unit_interval("model.ou_theta", ou_theta)
        self.gamma, self.actor_lr, self.critic_lr = gamma, actor_lr, critic_lr
        self.exploration_noise: nn.Module
        if exploration == "ou":
            self.exploration_noise = OrnsteinUhlenbeckNoise(exploration_sigma, ou_theta)
        else:
            self.exploration_noise = GaussianNoise(exploration_sigma)

    def build(self, spec: Any) -> None:
        self.actor = DeterministicActor(spec.observation_dim, spec.action_dim, self.hidden_sizes)
        self.critic = self.make_critic(spec)
        self.actor_target = copy.deepcopy(self.actor)
        self.critic_target = copy.deepcopy(self.critic)

    def make_critic(self, spec: Any) -> Any:
        """The critics: a module of observation `[..., O]` and action `[..., A]` to values `[E, ..., 1]`."""
        return QEnsemble(spec.observation_dim, spec.action_dim, self.hidden_sizes, num=self.num_critics)

    def updates(self) -> Iterator[Update]:
        """Critic, then actor: Algorithm 1 of arXiv 1509.02971."""
        yield Update("critic", self.critic, self.critic_loss, self.critic_lr)
        yield Update("actor", self.actor, self.actor_loss, self.actor_lr)

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.critic, self.critic_target
        yield self.actor, self.actor_target

    def act(self, observation: Tensor) -> Tensor:
        return self.actor(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.exploration_noise(self.actor(observation), is_init)

    def target_action(self, observation: Tensor) -> Tensor:
        """The target policy's action `[B, A]` at the next observation."""
        return self.actor_target(observation)

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared temporal-difference error of every critic, against the smallest target critic."""
        following = batch["next"]
        with torch.no_grad():
            next_observation = following["observation"]
            next_q = self.critic_target(next_observation, self.target_action(next_observation)).amin(0)
        target = td_target(following["reward"], following["terminated"], next_q, self.gamma)
        q = self.critic(batch["observation"], batch["action"])
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        return q_loss(q, target).mean((1, 2)).sum()

    def actor_loss(self, batch: TensorDictBase) -> Tensor:
        """Deterministic policy gradient through the first critic."""
        observation = batch["observation"]
        return dpg_loss(self.critic.first(observation, self.actor(observation))).mean()
