"""Twin delayed deep deterministic policy gradient.

Fujimoto et al. 2018 (arXiv 1802.09477v3): DDPG with the smaller of two target critics, smoothed target actions and a
policy that is updated (and targets that follow, `callbacks.SoftTargetUpdate(period=2)`) every second training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.losses import smoothed_action
from lit_mbrl.training.algorithm import Update
from lit_mbrl.utils.errors import require


class TD3(DDPG):
    """Twin critics, target policy smoothing, delayed policy updates.

    Args:
        actor_lr: Adam's learning rate of the actor.
        critic_lr: of both critics.
        exploration: `"gaussian"` (the paper's) or `"ou"`.
        exploration_sigma: the noise's standard deviation, for actions in [-1, 1].
        policy_delay: training steps per policy update.
        target_noise: standard deviation of the smoothing noise.
        target_noise_clip: bound of the smoothing noise.
        **kwargs: of `DDPG`.
    """

    paper = "Fujimoto et al. 2018, arXiv 1802.09477"
    num_critics = 2

    def __init__(
        self,
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        exploration: Literal["ou", "gaussian"] = "gaussian",
        exploration_sigma: float = 0.1,
        policy_delay: int = 2,
        target_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            actor_lr=actor_lr,
            critic_lr=critic_lr,
            exploration=exploration,
            exploration_sigma=exploration_sigma,
            **kwargs,
        )
        require(policy_delay > 0, "model.policy_delay", policy_delay, "an integer > 0")
        require(target_noise >= 0, "model.target_noise", target_noise, "a number >= 0")
        require(target_noise_clip >= 0, "model.target_noise_clip", target_noise_clip, "a number >= 0")
        self.policy_delay, self.target_noise, self.target_noise_clip = policy_delay, target_noise, target_noise_clip

    def updates(self) -> Iterator[Update]:
        """Critics in every training step, the actor in every `policy_delay`-th: Algorithm 1 of arXiv 1802.09477."""
        yield Update("critic", self.critic, self.critic_loss, self.critic_lr)
        yield Update("actor", self.actor, self.actor_loss, self.actor_lr, every=self.policy_delay)

    def target_action(self, observation: Tensor) -> Tensor:
        """The target policy's action with clipped noise."""
        action = self.actor_target(observation)
        return smoothed_action(action, self.target_noise * torch.randn_like(action), self.target_noise_clip)
