"""Maximum-entropy exploration for a Dreamer: MaxEnt Dreamer's section 3 and 4.1.

Svidchenko and Shpilman 2021, "Maximum Entropy Model-based Reinforcement Learning" (arXiv 2112.01195v1, "MaxEnt"). A
stochastic agent ascends `V(s_t) + beta H(q(. | s_t))` (eq. 7), where q is the discounted distribution of the states
that follow (eq. 6). A mixture density network P estimates it from imagined rollouts (eq. 10), and the entropy is minus
its log-density at the same rollouts' states, with the gradient through them to the actor. A deterministic agent with
actor and critic of its own learns the reward alone beside it, and is the one that is evaluated.

It goes onto either Dreamer: `MaxEntExploration` is the paper's "Dreamer with exploration only", `MaxEntDreamer` the
whole of its algorithm, on the `RevisedDreamer`.

Readings where the paper is open:

- The hidden state is all of it, `(h, z)`. The entropy is that of the state where imagination starts (`s_t` of eq. 7),
  once per imagined sequence, also in the Dreamer that learns from all states of the sequence.
- The target network gives the entropy, as the paper says, and also the sample that ends eq. 10 there; the network's own
  learning takes that sample from itself. The sum over the mixture's components is taken exactly in the entropy, with a
  draw of each, because the choice of a component has no gradient.
- Terminations weigh eq. 10 as derived in `losses.state_entropy`; without a termination model there are none.
- The deterministic agent's network is not described; ours is Dreamer's policy without its noise, with the same bound on
  the mean before the tanh (`networks.DeterministicLatentActor` says why).
- The paper has no noise on collected actions (`exploration_sigma` 0); the Revised Dreamer's random actions stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms.dreamer import Dreamer, ImaginedReturns
from lit_mbrl.algorithms.revised_dreamer import RevisedDreamer
from lit_mbrl.losses import expectation_over_future, future_weights
from lit_mbrl.models import Latent, MixtureDensityNetwork
from lit_mbrl.networks import DeterministicLatentActor, glorot_
from lit_mbrl.training.algorithm import Update
from lit_mbrl.training.latent_agent import StartStates
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt


class Visited(NamedTuple):
    """The imagined states of the stochastic agent, constants: features `[N, H+1, F]`, and of all but the first the
    probabilities `[N, H, 1]` that the episode ends there."""

    feature: Tensor
    ends: Tensor


@options
class MaxEntExploration(Dreamer):
    """Dreamer v1 that explores by the entropy of the states to come.

    Needs `lit_mbrl.callbacks.SoftTargetUpdate` (section 5.1: 0.1); `lit_mbrl.callbacks.EntropyAnnealing` on the
    attribute `entropy_coeff` lowers beta (section 5.1: linearly from 0.2 to 0.0001).
    """

    paper = "Svidchenko and Shpilman 2021, arXiv 2112.01195"

    entropy_coeff: NonNegativeFloat = 0.2
    """Beta of eq. 7, at the start if something anneals it."""
    entropy_gamma: ClosedUnitInterval = 0.9
    """Discount of the distribution of states."""
    density_heads: PositiveInt = 8
    """Components of the mixture."""
    density_units: PositiveInt = 256
    """Width of the density network's two hidden layers."""
    density_lr: PositiveFloat = 2e-4
    """Adam's learning rate of the density network."""
    exploration_sigma: NonNegativeFloat = 0.0
    """Standard deviation of the noise on collected actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("entropy_coeff", torch.tensor(float(take(self, "entropy_coeff"))))

    def build(self, spec: Any) -> None:
        super().build(spec)
        feature_dim = self.world_model.feature_dim
        self.density = MixtureDensityNetwork(feature_dim, self.density_heads, (self.density_units,) * 2)
        self.greedy_actor = DeterministicLatentActor(feature_dim, spec.action_dim, self.layers(self.actor_layers))
        self.greedy_critic = self.make_critic()
        for module in (self.density, self.greedy_actor, self.greedy_critic):
            glorot_(module)
        self.density_target = copy.deepcopy(self.density)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the configured `entropy_coeff`, which is an option and not a result."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"]["entropy_coeff"] = self.entropy_coeff.clone()

    def updates(self) -> Iterator[Update]:
        """Dreamer's, then the density, then the deterministic agent."""
        for update in super().updates():
            yield replace(update, gives=("imagined_returns", "visited")) if update.name == "actor" else update
        yield self.update(
            "density", self.density, self.density_loss, self.density_lr, takes=("start_states", "visited")
        )
        yield self.update(
            "greedy_actor",
            self.greedy_actor,
            self.greedy_actor_loss,
            self.actor_lr,
            takes=("start_states",),
            gives=("greedy_returns",),
        )
        yield self.update(
            "greedy_critic", self.greedy_critic, self.greedy_critic_loss, self.critic_lr, takes=("greedy_returns",)
        )

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.density, self.density_target

    def model_rollouts(self, batch_size: int) -> int:
        return 2 * batch_size

    # ------------------------------------------------------------------ the stochastic agent
    def actor_loss(self, batch: TensorDictBase, start_states: StartStates) -> tuple[Tensor, ...]:
        """Minus MaxEnt eq. 7, mean over the starts that count; then the critic's returns and the density's states."""
        imagined = self.imagine(self.actor, start_states)
        imagined_returns = self.compute_returns(imagined, self.actor, self.critic, start_states.counts)
        value = self.objective(imagined_returns)
        ends = self.world_model.termination_prob(imagined.feature[:, 1:])
        entropy = (start_states.counts * self.entropy(imagined.feature, ends)).mean()
        self.record("policy/state_entropy", entropy)
        self.record("policy/entropy_coeff", self.entropy_coeff)
        visited = Visited(imagined.feature.detach(), ends.detach())
        return -(value + self.entropy_coeff * entropy), imagined_returns.detach(), visited

    def entropy(self, feature: Tensor, ends: Tensor) -> Tensor:
        """Monte Carlo estimate `[N, 1]` of `H(q(. | s_0))` by the target network, differentiable in the states.

        Args:
            feature: of the imagined states, `[N, H+1, F]`; the first one is a constant.
            ends: probabilities `[N, H, 1]` that the episode ends in each of the others.
        """
        density = self.density_target(feature[:, 0])
        following = self.density_target(feature[:, -1])
        tail = following.component_samples(torch.randn_like(following.mean))  # [N, K, F]
        log_prob = density.log_prob(torch.cat([feature[:, 1:], tail], 1))  # [N, H + K, 1]
        horizon = ends.shape[1]
        weight = future_weights(ends, self.entropy_gamma)
        share = following.log_weight.exp().unsqueeze(-1)
        return -expectation_over_future(weight, log_prob[:, :horizon], log_prob[:, horizon:], share)

    def density_loss(self, batch: TensorDictBase, start_states: StartStates, visited: Visited) -> Tensor:
        """Minus the weighted log-likelihood of the states that the stochastic agent has imagined (MaxEnt eq. 10)."""
        feature, ends = visited
        with torch.no_grad():
            uniform = torch.rand_like(feature[:, 0, :1])
            tail = self.density(feature[:, -1]).sample(uniform, torch.randn_like(feature[:, 0]))
            states = torch.cat([feature[:, 1:], tail.unsqueeze(1)], 1)
            weight = future_weights(ends, self.entropy_gamma)
        log_prob = self.density(feature[:, 0]).log_prob(states)
        return -(start_states.counts * (weight * log_prob).sum(1)).sum() / start_states.counts.sum().clamp(min=1.0)

    # ------------------------------------------------------------------ the deterministic agent
    def greedy_actor_loss(self, batch: TensorDictBase, start_states: StartStates) -> tuple[Tensor, ImaginedReturns]:
        """Minus the deterministic agent's lambda-returns: Dreamer's objective without the entropy."""
        imagined = self.imagine(self.greedy_actor, start_states)
        imagined_returns = self.compute_returns(imagined, self.greedy_actor, self.greedy_critic, start_states.counts)
        return -(imagined_returns.weight * imagined_returns.returns).mean(), imagined_returns.detach()

    def greedy_critic_loss(self, batch: TensorDictBase, imagined_returns: ImaginedReturns) -> Tensor:
        """Computes the loss of its critic."""
        return self.value_loss(self.greedy_critic, imagined_returns)

    def greedy_action(self, latent: Latent) -> Tensor:
        return self.greedy_actor.mode(latent.feature)


@options
class MaxEntDreamer(MaxEntExploration, RevisedDreamer):
    """Maximum Entropy Dreamer: the Revised Dreamer with maximum-entropy exploration."""

    paper = "Svidchenko and Shpilman 2021, arXiv 2112.01195"
