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
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, Sizes


@options
class DDPG(Algorithm):
    """One critic and a deterministic actor. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Lillicrap et al. 2015, arXiv 1509.02971"
    takes_relabelled = True
    num_critics = 1

    hidden_sizes: Sizes = (256, 256)
    """Hidden layers of actor and critic."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    actor_lr: PositiveFloat = 1e-4
    """Adam's learning rate of the actor."""
    critic_lr: PositiveFloat = 1e-3
    """Adam's learning rate of the critic."""
    exploration: Literal["ou", "gaussian"] = "ou"
    """Noise on collected actions: Ornstein-Uhlenbeck (`"ou"`, the paper's) or `"gaussian"`."""
    exploration_sigma: NonNegativeFloat = 0.2
    """The noise's standard deviation, for actions in [-1, 1]."""
    ou_theta: ClosedUnitInterval = 0.15
    """The Ornstein-Uhlenbeck noise's rate of return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ou = self.exploration == "ou"
        sigma = self.exploration_sigma
        self.exploration_noise = OrnsteinUhlenbeckNoise(sigma, self.ou_theta) if ou else GaussianNoise(sigma)

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
