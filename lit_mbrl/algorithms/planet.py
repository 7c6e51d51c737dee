"""PlaNet: planning in the latent space of a world model, without a policy.

Hafner et al. 2018, "Learning Latent Dynamics for Planning from Pixels" (arXiv 1811.04551v5, "PlaNet"). The model is
Dreamer's RSSM with ReLU, and maximises the evidence lower bound (eq. 3 with the terms of section 3); an action is the
first of a sequence that the cross-entropy method finds for the sum of predicted rewards (algorithm 2), planned from
scratch at every step. The numbers that the paper leaves out are the public code's.

Readings and departures:

- No latent overshooting: the public code's weight for it is 0.
- The free nats are taken off the divergence of every step before the mean (the public code), unlike in Dreamer.
- Images keep 5 bits of colour with noise as wide as a bin, also while acting. An evaluation takes the middle of the
  bin, the posterior's mean and, for the planner, random numbers of a fixed seed, so that it is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_mbrl.losses import free_nats_of_steps, gaussian_kl
from lit_mbrl.models import Latent, Posterior
from lit_mbrl.networks.exploration import GaussianNoise
from lit_mbrl.planners import CEM
from lit_mbrl.training.latent_agent import LatentAgent
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt

_PLAYER_SEED = 0


@options
class PlaNet(LatentAgent):
    """An RSSM and the cross-entropy method."""

    paper = "Hafner et al. 2018, arXiv 1811.04551"
    activation: ClassVar[type[nn.Module]] = nn.ReLU
    bits: ClassVar[int] = 5

    units: PositiveInt = 300
    """Width of the reward head's layers."""
    reward_layers: PositiveInt = 3
    """Hidden layers of the reward head."""
    reward_scale: NonNegativeFloat = 10.0
    """Weight of the reward's likelihood."""
    model_lr: PositiveFloat = 1e-3
    """Adam's learning rate."""
    adam_eps: PositiveFloat = 1e-4
    """Adam's epsilon."""
    max_grad_norm: PositiveFloat = 1000.0
    """Bound of the gradient's norm."""
    planner: CEM | None = None
    """The cross-entropy method and its sizes; null: the paper's."""
    exploration_sigma: NonNegativeFloat = 0.3
    """Standard deviation of the noise on collected actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.planner = self.planner or CEM()
        self.exploration_noise = GaussianNoise(self.exploration_sigma)

    def kl_loss(self, observed: Posterior, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """`max(D_KL - free nats, 0)` of every step, then the mean."""
        kl = gaussian_kl(observed.mean, observed.std, observed.prior_mean, observed.prior_std)
        self.record("model/kl", mean(kl))
        return self.kl_scale * mean(free_nats_of_steps(kl, self.free_nats))

    def plan(self, latent: Latent) -> Tensor:
        """The first action `[N, A]` of the best plan from each of `N` states, all planned side by side."""
        num = len(latent.deter)

        def objective(candidates: Tensor) -> Tensor:
            """Sum of the predicted rewards `[N, K]` of action sequences `[N, K, H, A]`."""
            each = candidates.shape[1]
            state = Latent(*(value.repeat_interleave(each, 0) for value in latent))
            features = []
            for action in candidates.flatten(0, 1).unbind(1):
                state = self.world_model.img_step(state, action)
                features.append(state.feature)
            return self.world_model.reward(torch.stack(features)).sum(0).view(num, each)

        return self.planner.plan(objective, self.planner.noise(num, self.action_dim, self.device))[:, 0]

    def exploration_action(self, latent: Latent) -> Tensor:
        action = self.plan(latent)
        return self.exploration_noise(action, torch.zeros(len(action), 1, dtype=torch.bool, device=action.device))

    def greedy_action(self, latent: Latent) -> Tensor:
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(_PLAYER_SEED)
            return self.plan(latent)
