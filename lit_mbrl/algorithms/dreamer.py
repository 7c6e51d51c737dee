"""Dreamer: a policy that learns in the imagination of a latent world model.

Hafner et al. 2019, "Dream to Control: Learning Behaviors by Latent Imagination" (arXiv 1912.01603v3, "Dreamer"). The
model maximises the evidence lower bound (eq. 10); from every posterior state of the batch the actor imagines H steps
and ascends the lambda-returns through the model's gradient (eq. 7), and the value regresses them (eq. 8). The numbers
that the paper leaves out are the public code's.

Readings and departures:

- A reward belongs to the state that it leads to, so the value of a state contains that state's own reward, as in the
  public code: `V(s_t) = r(s_t) + gamma V(s_{t+1})`. The state from which imagination starts is not part of a return.
- Steps are weighed by the product of the discounts before them, which is the public code's choice; eq. 7 and 8 have
  none. The actor sees states without gradient; the gradient of a return reaches an action through the dynamics.
- The code takes the three gradients before any step; here the model steps first, and the behaviour imagines in the
  model after its step, from states before it.
- With `termination` the public code predicts the discount `gamma (1 - d)` by a head; ours predicts d, which is the
  same at the optimum. It drops the last state of each sequence as a start; we drop the states of ended episodes.
- Evaluation takes the posterior's mean and the best of 100 fixed draws of the action, so that it is deterministic; the
  code draws both.
- `time_order="act_first"` is the public code's. The paper's baseline in MaxEnt Dreamer is said to act before
  anything is observed, is `"blind_start"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.imagination import LatentRollout, imagine_latent
from lit_mbrl.losses import discounted_weights, unit_gaussian_loss
from lit_mbrl.models import Latent
from lit_mbrl.networks import MLP, DreamerActor, glorot_
from lit_mbrl.networks.exploration import GaussianNoise
from lit_mbrl.returns import lambda_returns
from lit_mbrl.training.algorithm import Update
from lit_mbrl.training.latent_agent import LatentAgent, StartStates
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt, Rule


class ImaginedReturns(NamedTuple):
    """Returns of an imagined rollout: `[N, h, ...]`, h states or pairs per start.

    | field | |
    |---|---|
    | `inputs` | of the critic, constants |
    | `returns` | `[N, h, 1]`, differentiable in the actor's parameters |
    | `weight` | `[N, h, 1]`, a constant: how much each counts |
    """

    inputs: Tensor
    returns: Tensor
    weight: Tensor

    def detach(self) -> ImaginedReturns:
        """The same as constants, for a critic."""
        return ImaginedReturns(*(value.detach() for value in self))


@options
class Dreamer(LatentAgent):
    """Dreamer v1."""

    paper = "Hafner et al. 2019, arXiv 1912.01603"

    horizon: Annotated[
        int, Rule("an integer >= 2: the last imagined state has only a value", lambda steps: steps >= 2)
    ] = 15
    """Imagined steps H."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lmbda: ClosedUnitInterval = 0.95
    """Lambda of the lambda-returns."""
    actor_lr: PositiveFloat = 8e-5
    """Adam's learning rate of the actor."""
    critic_lr: PositiveFloat = 8e-5
    """Adam's learning rate of the value."""
    actor_layers: PositiveInt = 4
    """Hidden layers of the actor."""
    critic_layers: PositiveInt = 3
    """Hidden layers of the value."""
    init_std: PositiveFloat = 5.0
    """Standard deviation of the untrained policy, before the tanh."""
    exploration_sigma: NonNegativeFloat = 0.3
    """Standard deviation of the noise on collected actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration_noise = GaussianNoise(self.exploration_sigma)

    def build(self, spec: Any) -> None:
        super().build(spec)
        feature_dim = self.world_model.feature_dim
        self.actor = DreamerActor(feature_dim, spec.action_dim, self.layers(self.actor_layers), self.init_std)
        self.critic = self.make_critic()
        glorot_(self.actor)
        glorot_(self.critic)

    def make_critic(self) -> MLP:
        """The value of a state, `[..., F]` to `[..., 1]`."""
        return MLP(self.world_model.feature_dim, self.layers(self.critic_layers), 1, nn.ELU)

    def updates(self) -> Iterator[Update]:
        """Model, actor, critic: the losses of Dreamer's Algorithm 1."""
        yield from super().updates()
        yield self.update(
            "actor", self.actor, self.actor_loss, self.actor_lr, takes=("start_states",), gives=("imagined_returns",)
        )
        yield self.update("critic", self.critic, self.critic_loss, self.critic_lr, takes=("imagined_returns",))

    def model_rollouts(self, batch_size: int) -> int:
        return batch_size

    # ------------------------------------------------------------------ losses
    def imagine(self, actor: nn.Module, start_states: StartStates) -> LatentRollout:
        """H steps from every posterior state of the training step."""
        return imagine_latent(
            lambda feature: actor.action(feature, self.noise(len(feature))),
            self.world_model,
            start_states.latent,
            self.horizon,
        )

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise `[*shape, A]` for the reparameterised policy."""
        like = self.world_model.rssm.inputs.weight
        return torch.randn(*shape, self.action_dim, dtype=like.dtype, device=like.device)

    def actor_loss(self, batch: TensorDictBase, start_states: StartStates) -> tuple[Tensor, ...]:
        """Minus the lambda-returns (Dreamer eq. 7), differentiated through policy, dynamics, reward and value.

        Second is what the critic learns of the same rollout.
        """
        imagined = self.imagine(self.actor, start_states)
        imagined_returns = self.compute_returns(imagined, self.actor, self.critic, start_states.counts)
        return -self.objective(imagined_returns), imagined_returns.detach()

    def objective(self, imagined_returns: ImaginedReturns) -> Tensor:
        """Computes what the actor ascends, a scalar: the weighted mean of the returns."""
        self.record("policy/imagined_return", imagined_returns.returns.mean())
        return (imagined_returns.weight * imagined_returns.returns).mean()

    def compute_returns(
        self, imagined: LatentRollout, actor: nn.Module, critic: nn.Module, counts: Tensor
    ) -> ImaginedReturns:
        """Returns of the states 1 ... H - 1 (Dreamer eq. 6); the last state has only a value.

        Args:
            counts: how much each start counts, `[N, 1]`.
        """
        states = imagined.feature[:, 1:]  # [N, H, F]
        reward = self.world_model.reward(states[:, :-1])
        ends = self.world_model.termination_prob(states[:, :-1])
        returns = lambda_returns(reward, critic(states)[:, 1:], ends, self.gamma, self.lmbda)
        weight = discounted_weights(self.gamma * (1.0 - ends)) * counts.unsqueeze(1)
        return ImaginedReturns(states[:, :-1], returns, weight)

    def critic_loss(self, batch: TensorDictBase, imagined_returns: ImaginedReturns) -> Tensor:
        """Computes the value's loss (Dreamer eq. 8) on the returns that the actor's loss has imagined."""
        return self.value_loss(self.critic, imagined_returns)

    def value_loss(self, critic: nn.Module, imagined_returns: ImaginedReturns) -> Tensor:
        """Computes the weighted mean of `value_error`."""
        value = critic(imagined_returns.inputs)
        self.record("q/mean", value.mean())
        self.record("q/target", imagined_returns.returns.mean())
        return (imagined_returns.weight * self.value_error(value, imagined_returns.returns)).mean()

    def value_error(self, predicted: Tensor, returns: Tensor) -> Tensor:
        """Minus the log-likelihood of the returns, `[..., 1]`."""
        return unit_gaussian_loss(predicted, returns)

    # ------------------------------------------------------------------ acting
    def exploration_action(self, latent: Latent) -> Tensor:
        feature = latent.feature
        action = self.actor.action(feature, self.noise(len(feature)))
        return self.exploration_noise(action, torch.zeros(len(action), 1, dtype=torch.bool, device=action.device))

    def greedy_action(self, latent: Latent) -> Tensor:
        return self.actor.mode(latent.feature)
