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
from lit_mbrl.networks import CategoricalActor, GaussianActor, RewardNormalizer, orthogonal_mlp
from lit_mbrl.training.algorithm import Algorithm, Compile, Normalize, Update
from lit_mbrl.training.natural_gradient import NaturalGradient
from lit_mbrl.training.rollouts import RolloutAgent, make_actor
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import in_unit_interval, positive, positive_sizes, require


class TrustRegionPolicy(Algorithm):
    """A policy that takes natural gradient steps on eq. 14, for those who bring rollouts with advantages.

    Args:
        hidden_sizes: hidden layers, tanh, of the policy; None: [64, 64].
        max_kl: delta, bound of the mean divergence KL(old, new) of a step, in nats.
        damping: what is added to the Fisher matrix's diagonal.
        cg_iterations: iterations of conjugate gradient.
        line_search_shrink: ratio of two tries of the line search.
        line_search_tries: tries after which the policy stays as it is.
        standardize_advantages: over the rollout.
        init_log_std: log standard deviation of the Gaussian policy at the start.
        normalize_observations: see `Algorithm`.
        compile: see `Algorithm`; the search cannot be compiled, so training steps run eagerly.
    """

    actor: GaussianActor | CategoricalActor
    fixed_on_resume = (*Algorithm.fixed_on_resume, "init_log_std")

    def __init__(
        self,
        hidden_sizes: list[int] | None = None,
        max_kl: float = 0.01,
        damping: float = 0.1,
        cg_iterations: int = 10,
        line_search_shrink: float = 0.8,
        line_search_tries: int = 10,
        standardize_advantages: bool = True,
        init_log_std: float = 0.0,
        normalize_observations: Normalize = False,
        compile: Compile = False,
    ) -> None:
        super().__init__(normalize_observations, compile)
        self.hidden_sizes = [64, 64] if hidden_sizes is None else hidden_sizes
        positive_sizes("model.hidden_sizes", self.hidden_sizes)
        positive("model.max_kl", max_kl)
        require(damping >= 0, "model.damping", damping, "a number >= 0")
        require(cg_iterations > 0, "model.cg_iterations", cg_iterations, "an integer > 0")
        shrink = "a number between 0 and 1, both excluded"
        require(0 < line_search_shrink < 1, "model.line_search_shrink", line_search_shrink, shrink)
        require(line_search_tries > 0, "model.line_search_tries", line_search_tries, "an integer > 0")
        self.damping, self.standardize_advantages = damping, standardize_advantages
        self.init_log_std = init_log_std
        self.policy_step = partial(
            NaturalGradient,
            max_kl=max_kl,
            cg_iterations=cg_iterations,
            shrink=line_search_shrink,
            max_tries=line_search_tries,
        )

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
            step=self.policy_step,
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


class TRPO(TrustRegionPolicy, RolloutAgent):
    """A policy by natural gradients under a bound of its divergence, and a value; continuous and discrete actions.

    Args:
        gamma: discount.
        lmbda: lambda of the generalised advantages.
        value_lr: Adam's learning rate of the value, which has the policy's hidden layers.
        scale_rewards: divide rewards by the standard deviation of their discounted sum (`networks.RewardNormalizer`).
        **kwargs: of `TrustRegionPolicy`.
    """

    paper = "Schulman et al. 2015, arXiv 1502.05477"
    fixed_on_resume = (*TrustRegionPolicy.fixed_on_resume, "scale_rewards")

    def __init__(
        self,
        gamma: float = 0.99,
        lmbda: float = 0.95,
        value_lr: float = 1e-3,
        scale_rewards: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        in_unit_interval("model.gamma", gamma)
        in_unit_interval("model.lmbda", lmbda)
        positive("model.value_lr", value_lr)
        self.gamma, self.lmbda, self.value_lr = gamma, lmbda, value_lr
        self.reward_normalizer = RewardNormalizer(gamma) if scale_rewards else None

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
