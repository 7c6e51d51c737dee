"""Model-based value expansion in the critic (MVE), with either actor.

Feinberg et al. 2018, "Model-Based Value Estimation for Efficient Model-Free Reinforcement Learning" (arXiv
1803.00101v1), in the soft form that SVG (arXiv 2008.12775v3, section 5.1.2, fig. 4 and 7) ablates. With `horizon=0`
the actor is SAC's ("MVE + model-free actor"), with `horizon=H` it is SVG(H)'s ("MVE + SVG(H)").

The critic's target at a replayed transition `(x, u, r, x_0)` is eq. 3's value of the rollout from `x_0`:

    y      = r   + gamma (1 - d) (y_0 - alpha log pi(u_0 | x_0))
    y_t    = r_t + gamma (1 - d_t) (y_{t+1} - alpha log pi(u_{t+1} | x_{t+1}))        0 <= t < H
    y_H    = Q_target(x_H, u_H)

Readings: the TD-k trick trains the critic at the imagined `(x_t, u_t)` as well, each against its own `y_t`. Targets
and imagined inputs are constants, and a residual counts with the probability that its step is reached. The sum is
divided by its H + 1 terms, so `critic_horizon=0` is SAC's critic.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.sac_svg import SACSVG
from lit_mbrl.losses import q_loss, soft_q_target, soft_value
from lit_mbrl.returns import survival, td_k_targets
from lit_mbrl.training.update import SequenceBatchSpec
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeInt


@options
class MVE(SACSVG):
    """SAC-SVG(H) whose critic, too, expands its value through the model."""

    paper = "Feinberg et al. 2018, arXiv 1803.00101"

    critic_horizon: NonNegativeInt = 2
    """Model steps of the critic's target; 0 is the model-free target."""
    horizon: NonNegativeInt = 0
    """Model steps H of the actor's value expansion; 0 keeps the model-free actor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.terminal_value, "model.terminal_value", False, "true: MVE is about the critic")

    @property
    def model_horizon(self) -> int:
        return max(self.horizon, self.critic_horizon)

    def sampling(self) -> SequenceBatchSpec:
        longer = self.critic_horizon > self.horizon
        return replace(super().sampling(), option="model.critic_horizon") if longer else super().sampling()

    def model_rollouts(self, batch_size: int) -> int:
        critic = 0 if self.critic_horizon == 0 or self.actor_warmup else batch_size
        return super().model_rollouts(batch_size) + critic

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared residuals at the replayed and at the imagined states (TD-k trick)."""
        if self.critic_horizon == 0 or self.actor_warmup:
            return super().critic_loss(batch)
        following = batch["next"]
        with torch.no_grad():
            imagined = self.imagine(following["observation"], self.critic_horizon)
            q_last = self.critic_target(imagined.observation[:, -1], imagined.action[:, -1])
            bonus = -self.alpha * imagined.log_prob
            targets = td_k_targets(
                imagined.reward,
                soft_value(q_last, imagined.log_prob[:, -1], self.alpha),
                self.gamma,
                imagined.termination_prob,
                bonus[:, 1:],
            )
            first = soft_q_target(following["reward"], following["terminated"], targets[:, 0] + bonus[:, 0], self.gamma)
            targets = torch.cat([first.unsqueeze(1), targets], 1)  # [B, H+1, 1]
            reached = survival(imagined.termination_prob)[:, :-1] * ~following["terminated"].unsqueeze(1)
            reached = torch.cat([torch.ones_like(reached[:, :1]), reached], 1)
            observation = torch.cat([batch["observation"].unsqueeze(1), imagined.observation[:, :-1]], 1)
            action = torch.cat([batch["action"].unsqueeze(1), imagined.action[:, :-1]], 1)
        q = self.critic(observation, action)  # [E, B, H+1, 1]
        self.record("q/mean", q.mean)
        self.record("q/target", targets.mean)
        loss = q_loss(q.flatten(1, 2), targets.flatten(0, 1))  # [E, B (H+1), 1]
        return (reached.flatten(0, 1) * loss).mean((1, 2)).sum()
