"""Twin delayed deep deterministic policy gradient.

Fujimoto et al. 2018 (arXiv 1802.09477v3): DDPG with the smaller of two target critics, smoothed target actions and a
policy that is updated (and targets that follow, `lit_mbrl.callbacks.SoftTargetUpdate(period=2)`) every second training
step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.losses import smoothed_action
from lit_mbrl.training.algorithm import Update
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt


@options
class TD3(DDPG):
    """Twin critics, target policy smoothing, delayed policy updates."""

    paper = "Fujimoto et al. 2018, arXiv 1802.09477"
    num_critics = 2

    actor_lr: PositiveFloat = 3e-4
    """Adam's learning rate of the actor."""
    critic_lr: PositiveFloat = 3e-4
    """Adam's learning rate of both critics."""
    exploration: Literal["ou", "gaussian"] = "gaussian"
    """Noise on collected actions: `"gaussian"` (the paper's) or Ornstein-Uhlenbeck (`"ou"`)."""
    exploration_sigma: NonNegativeFloat = 0.1
    """The noise's standard deviation, for actions in [-1, 1]."""
    policy_delay: PositiveInt = 2
    """Training steps per policy update."""
    target_noise: NonNegativeFloat = 0.2
    """Standard deviation of the smoothing noise."""
    target_noise_clip: NonNegativeFloat = 0.5
    """Bound of the smoothing noise."""

    def updates(self) -> Iterator[Update]:
        """Critics in every training step, the actor in every `policy_delay`-th: Algorithm 1 of arXiv 1802.09477."""
        yield Update("critic", self.critic, self.critic_loss, self.critic_lr)
        yield Update("actor", self.actor, self.actor_loss, self.actor_lr, every=self.policy_delay)

    def target_action(self, observation: Tensor) -> Tensor:
        """The target policy's action with clipped noise."""
        action = self.actor_target(observation)
        return smoothed_action(action, self.target_noise * torch.randn_like(action), self.target_noise_clip)
