"""Trust-region policy optimisation.

Schulman et al. 2015 (arXiv 1502.05477v5): the policy maximises the surrogate objective of eq. 14 under a bound of the
mean divergence from the policy that has acted, with the step of section 6 and appendix C (`training.natural_gradient`).
The loop is section 6's, single path: roll out in `after_collect`, one step of the policy on the whole rollout, whose
bound and line search are the update's.

Readings and departures, all as in OpenAI's baselines and Stable-Baselines3 if nothing else is said:

- Advantages are generalised ones (Schulman et al., arXiv 1506.02438v6), standardised over the rollout, on several
  devices over each device's. The paper has Monte Carlo estimates of Q.
- A value network is fitted to the advantages' returns by Adam, on minibatches of the rollout after the policy's step.
- The Fisher matrix is that of all frames of the rollout (appendix C: of a subset) plus `damping`. It and the line
  search take the exact divergence of the distributions, not an estimate from actions.
- Networks and actions beyond [-1, 1] are as in `ppo.py`, and observation statistics stand still during a rollout.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import standardized, surrogate_objective, value_loss
from lit_mbrl.networks import RewardNormalizer, orthogonal_mlp
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.training.natural_gradient import NaturalGradient
from lit_mbrl.training.rollouts import RolloutAgent, make_actor
from lit_mbrl.utils import distributed
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    NonNegativeFloat,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Sizes,
)


@options
class TrustRegionPolicy(Algorithm):
    """A policy that takes natural gradient steps on eq. 14, for those who bring rollouts with advantages.

    The search cannot be compiled, so with `compile` training steps run eagerly. `max_grad_norm` is of other updates: a
    natural gradient step is as long whatever its gradient's norm.
    """

    fixed_on_resume = (*Algorithm.fixed_on_resume, "init_log_std")

    hidden_sizes: Sizes = (64, 64)
    """Hidden layers, tanh."""
    max_kl: PositiveFloat = 0.01
    """Delta, bound of the mean divergence KL(old, new) of a step, in nats."""
    damping: NonNegativeFloat = 0.1
    """Damping: added to the Fisher matrix's diagonal."""
    cg_iterations: PositiveInt = 10
    """Iterations of conjugate gradient."""
    line_search_shrink: OpenUnitInterval = 0.8
    """Ratio of two tries of the line search."""
    line_search_tries: PositiveInt = 10
    """Tries after which the policy stays as it is."""
    standardize_advantages: bool = True
    """Standardise advantages over the rollout."""
    init_log_std: float = 0.0
    """Log standard deviation of the Gaussian policy at the start."""

    def build(self, spec: Any) -> None:
        self.actor = make_actor(spec, spec.observation_dim, self.hidden_sizes, self.init_log_std)

    def updates(self) -> Iterator[Update]:
        """Maximises eq. 14 within the bound, on the batch `"rollout"`."""
        yield Update(
            "policy",
            self.actor,
            self.policy_loss,
            lr=1.0,
            batch="rollout",
            step=partial(
                NaturalGradient,
                max_kl=self.max_kl,
                cg_iterations=self.cg_iterations,
                shrink=self.line_search_shrink,
                max_tries=self.line_search_tries,
            ),
            eps=self.damping,
            divergence=self.divergence,
        )

    def policy_loss(self, batch: TensorDictBase) -> Tensor:
        """Eq. 14, negative; reads `observation`, `action`, `log_prob` and `advantage`."""
        log_prob, _ = self.actor.log_prob_entropy(batch["observation"], batch["action"])
        advantage = standardized(batch["advantage"]) if self.standardize_advantages else batch["advantage"]
        return -surrogate_objective(log_prob, batch["log_prob"], advantage).mean()

    def divergence(self, batch: TensorDictBase) -> Tensor:
        """Mean of KL(acted, current), eq. 14's constraint; reads `observation` and `acted` (`networks.policies`)."""
        return self.actor.kl(batch["acted"], batch["observation"]).mean()


@options
class TRPO(TrustRegionPolicy, RolloutAgent):
    """A policy by natural gradients under a bound of its divergence, and a value; continuous and discrete actions."""

    paper = "Schulman et al. 2015, arXiv 1502.05477"
    fixed_on_resume = (*TrustRegionPolicy.fixed_on_resume, "scale_rewards")

    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lmbda: ClosedUnitInterval = 0.95
    """Lambda of the generalised advantages."""
    value_lr: PositiveFloat = 1e-3
    """Adam's learning rate of the value, which has the policy's hidden layers."""
    scale_rewards: bool = False
    """Divide rewards by the standard deviation of their discounted sum (`networks.RewardNormalizer`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reward_normalizer = RewardNormalizer(self.gamma) if self.scale_rewards else None

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.encoder = nn.Identity()
        self.critic = orthogonal_mlp(spec.observation_dim, self.hidden_sizes, 1, gain=1.0)

    def updates(self) -> Iterator[Update]:
        """One step of the policy on the rollout, then the value's on minibatches of it."""
        yield from super().updates()
        yield Update("value", self.critic, self.value_loss, self.value_lr)

    # ------------------------------------------------------------------ section 6
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """The policy has run for T steps in each of N environments: computes advantages and what the policy was."""
        data.rollout = self.prepare_rollout(frames)
        self.update_statistics(frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase | None]:
        """Returns the rollout for the policy, once; for the value the next minibatch."""
        rollout = data.rollout.flatten(0, 1) if data.begins_rollout else None
        learned = data.rollout.select("observation", "value", "advantage")
        return {"rollout": rollout, "transitions": self.minibatch(learned, data.minibatch_index())}

    @torch.no_grad()
    def prepare_rollout(self, frames: TensorDictBase) -> TensorDictBase:
        """See `RolloutAgent.prepare_rollout`; `"acted"` `[T, N, P]` describes the policy (`networks.policies`)."""
        rollout = super().prepare_rollout(frames)
        with self._precision():
            rollout["acted"] = self.actor.distribution(rollout["observation"])
            entropy = self.actor.entropy(rollout["observation"]).mean()
        distributed.average_([entropy])
        self.note({"policy/entropy": entropy.item()})
        return rollout

    def value_loss(self, batch: TensorDictBase) -> Tensor:
        """Mean squared error of the value from `A + V`."""
        return value_loss(self.critic(batch["observation"]), batch["advantage"] + batch["value"]).mean()
