"""Revised Dreamer: the Dreamer with the modifications of MaxEnt Dreamer's section 4.2.

Svidchenko and Shpilman 2021, "Maximum Entropy Model-based Reinforcement Learning" (arXiv 2112.01195v1, "MaxEnt"). Their
experiments call it Revised Dreamer: all that is in `MaxEntDreamer` but the exploration.

| section 4.2 | here |
|---|---|
| termination model in the returns | `termination`, `lambda_returns` |
| gradient from the first state of imagined sequences only | `compute_returns` |
| observation before the first action | `time_order="observe_first"` |
| fixed prior N(0, 1), Jeffreys divergence to the trainable one | `kl_loss` |
| the critic is a Q-function | `make_critic`, `compute_returns` |
| Smooth L1 for critic and reward | `value_error`, `reward_error` |
| the decoder sees the stochastic part only, of size 128 | `decode_from_stoch`, `stoch` |
| random actions besides additive noise | `exploration_action` |

Readings where the paper is open:

- "Gradients only for the first state" holds for actor and critic alike: both learn from the lambda-return of the state
  where imagination starts, which has really been reached, and none from later ones. The sum over steps inside it is
  weighed by the probability of their being reached.
- In eq. 5 with eq. 1 the reward of an action is that of the state arrived at, so `Q(s_t, a_t)` holds `r(s_{t+1})`, and
  the termination that cuts what follows is that of `s_{t+1}` too.
- `V(s) = E_a Q(s, a)` takes the one action that the rollout has drawn in s.
- The free nats bound the divergence to the fixed prior, the term that was there before ("the same hyperparameters");
  the Jeffreys divergence is not bounded, or the trainable prior would learn nothing below the bound.
- The scale of the termination's likelihood is not given; it is that of Dreamer's public code, 10.
- The probability of a random action is not given; ours is 0.1. It is uniform, one draw for each environment and step,
  and takes the place of the noisy action.
- Episodes that have ended are no start of imagination.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_mbrl.algorithms.dreamer import Dreamer, ImaginedReturns
from lit_mbrl.imagination import LatentRollout
from lit_mbrl.losses import free_nats, jeffreys, smooth_l1, standard_normal_kl
from lit_mbrl.models import Latent, Posterior, TimeOrder
from lit_mbrl.networks import MLP
from lit_mbrl.returns import lambda_returns
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveInt


@options
class RevisedDreamer(Dreamer):
    """Dreamer with section 4.2 of MaxEnt Dreamer."""

    paper = "Svidchenko and Shpilman 2021, arXiv 2112.01195"
    decode_from_stoch: ClassVar[bool] = True

    stoch: PositiveInt = 128
    """Stochastic units of the state (section 5.1)."""
    time_order: TimeOrder = "observe_first"
    """Of acting and observing."""
    termination: bool = True
    """Learn when episodes end, and cut returns there."""
    kl_scale: NonNegativeFloat = 0.1
    """Weight of the divergence to the fixed prior N(0, 1) (section 5.1)."""
    jeffreys_scale: NonNegativeFloat = 0.1
    """Weight of the Jeffreys divergence to the trainable prior (section 5.1)."""
    random_action_prob: ClosedUnitInterval = 0.1
    """Probability of a uniformly random action while collecting."""

    def make_critic(self) -> MLP:
        """`Q(s, a)`: features and action side by side to `[..., 1]`."""
        return MLP(self.world_model.feature_dim + self.action_dim, self.layers(self.critic_layers), 1, nn.ELU)

    def kl_loss(self, observed: Posterior, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """`D_KL(q || N(0, 1)) + D_J(q || p)`, each with its weight (MaxEnt section 4.2)."""
        kl = mean(standard_normal_kl(observed.mean, observed.std))
        distance = mean(jeffreys(observed.mean, observed.std, observed.prior_mean, observed.prior_std))
        self.record("model/kl", kl)
        self.record("model/jeffreys", distance)
        return self.kl_scale * free_nats(kl, self.free_nats) + self.jeffreys_scale * distance

    def reward_error(self, predicted: Tensor, reward: Tensor) -> Tensor:
        return smooth_l1(predicted, reward)

    def value_error(self, predicted: Tensor, returns: Tensor) -> Tensor:
        return smooth_l1(predicted, returns)

    def compute_returns(
        self, imagined: LatentRollout, actor: nn.Module, critic: nn.Module, counts: Tensor
    ) -> ImaginedReturns:
        """The return of the first state alone, `[N, 1, 1]` (MaxEnt eq. 5 with eq. 1's terminations)."""
        states = imagined.feature  # [N, H + 1, F]
        last = states[:, -1].detach()
        actions = torch.cat([imagined.action, actor.action(last, self.noise(len(last))).unsqueeze(1)], 1)
        arrived = states[:, 1:]
        q = critic(torch.cat([arrived, actions[:, 1:]], dim=-1))
        ends = self.world_model.termination_prob(arrived)
        returns = lambda_returns(self.world_model.reward(arrived), q, ends, self.gamma, self.lmbda)
        pairs = torch.cat([states[:, :1], actions[:, :1]], dim=-1)
        return ImaginedReturns(pairs, returns[:, :1], counts.unsqueeze(1))

    def exploration_action(self, latent: Latent) -> Tensor:
        action = super().exploration_action(latent)
        chance = torch.rand(len(action), 1, device=action.device)
        uniform = 2.0 * torch.rand_like(action) - 1.0
        return torch.where(chance < self.random_action_prob, uniform, action)
