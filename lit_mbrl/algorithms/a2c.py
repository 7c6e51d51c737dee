"""Advantage actor-critic.

Mnih et al. 2016 (arXiv 1602.01783v2): the policy gradient of section 4 with an entropy bonus, on n-step returns. This
is the synchronous form, A2C: instead of threads that send gradients of their own at their own time, N environments
take `data.rollout_steps` steps with the same policy, and one gradient step follows on all of their frames. Algorithm S3
is in `after_collect` and `loss`.

Readings and departures:

- Returns of a rollout's frame reach to the rollout's end, as algorithm S3's: `lmbda` 1. Less gives generalised
  advantages (Schulman et al., arXiv 1506.02438v6).
- The mean over frames where algorithm S3 sums over a thread's few, so `lr` is in other units than the paper's.
- The value's gradient is that of `value_coeff (R - V)^2`; the paper has 1 where policy and value share no layers, and
  0.5 in most implementations, which is the default.
- RMSProp with epsilon inside of the root (`training.rmsprop`), as section 4; `torch_rmsprop` takes torch's, as
  Stable-Baselines3 does, whose `eps` then has the unit of a gradient.
- Weights, actions beyond [-1, 1] and observation statistics are as in `ppo.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.losses import policy_gradient_loss, standardized, value_loss
from lit_mbrl.networks import GridEncoder, ImpalaEncoder, RewardNormalizer, orthogonal_mlp
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.training.rmsprop import RMSProp
from lit_mbrl.training.rollouts import RolloutAgent, make_actor
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, Sizes


@options
class A2C(RolloutAgent):
    """A policy and a value, one gradient step on each rollout of many environments; continuous and discrete actions."""

    paper = "Mnih et al. 2016, arXiv 1602.01783"
    pixels = None  # vectors or images
    fixed_on_resume = (*Algorithm.fixed_on_resume, "scale_rewards", "init_log_std")

    hidden_sizes: Sizes | None = None
    """Hidden layers, tanh, of policy and value each; null: [64, 64], and after `encoder` none."""
    encoder: ImpalaEncoder | GridEncoder | None = None
    """Of images only: the network that policy and value share, IMPALA's (`features`, `channels`) or one for images of a
    few pixels (`convolutions`, `units`); null: IMPALA's with the sizes of its paper."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lmbda: ClosedUnitInterval = 1.0
    """Lambda of the advantages; 1: n-step returns."""
    lr: PositiveFloat = 7e-4
    """RMSProp's learning rate."""
    anneal_lr: bool = False
    """Let it fall linearly, with each rollout, to 0 at `data.total_frames`, as the paper's."""
    alpha: ClosedUnitInterval = 0.99
    """RMSProp's decay of squared gradients."""
    eps: PositiveFloat = 1e-5
    """RMSProp's epsilon."""
    torch_rmsprop: bool = False
    """Take torch's RMSProp, whose epsilon is outside of the root."""
    value_coeff: NonNegativeFloat = 0.5
    """Weight of the value's loss."""
    entropy_coeff: NonNegativeFloat = 0.01
    """Weight of the policy's entropy, beta of the paper."""
    max_grad_norm: PositiveFloat | None = 0.5
    """Clip the gradient of all networks together to this norm."""
    standardize_advantages: bool = False
    """Standardise advantages over the rollout."""
    scale_rewards: bool = False
    """Divide rewards by the standard deviation of their discounted sum (`networks.RewardNormalizer`)."""
    init_log_std: float = 0.0
    """Log standard deviation of the Gaussian policy at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_options = take(self, "encoder")
        self.reward_normalizer = RewardNormalizer(self.gamma) if self.scale_rewards else None

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` unless a training step has the whole rollout, once."""
        require(
            data.num_epochs == 1, "data.num_epochs", data.num_epochs, "1 with A2C, which takes one step on a rollout"
        )
        frames = data.frames_per_batch
        whole = f"{frames} with A2C, the frames of a rollout (data.rollout_steps x data.env.num_envs)"
        require(data.batch_size % frames == 0, "data.batch_size", data.batch_size, whole)

    def build(self, spec: Any) -> None:
        self.encoder, features = self.make_encoder(spec)
        hidden = ([] if spec.pixels else [64, 64]) if self.hidden_sizes is None else self.hidden_sizes
        self.actor = make_actor(spec, features, hidden, self.init_log_std)
        self.critic = orthogonal_mlp(features, hidden, 1, gain=1.0)

    def updates(self) -> Iterator[Update]:
        """One step of all networks on the rollout."""
        networks, clip = [self.encoder, self.actor, self.critic], self.max_grad_norm
        yield Update("a2c", networks, self.loss, self.lr, max_grad_norm=clip, step=self.rmsprop(), eps=self.eps)

    def rmsprop(self) -> partial:
        """Returns the kind of step that the options ask for."""
        return partial(torch.optim.RMSprop if self.torch_rmsprop else RMSProp, alpha=self.alpha)

    # ------------------------------------------------------------------ algorithm S3
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """The policy has run for n steps in each of N environments: computes their returns."""
        data.rollout = self.prepare_rollout(frames)
        self.update_statistics(frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """Returns the rollout."""
        return {"transitions": self.minibatch(data.rollout, data.minibatch_index())}

    def training_step(self, batch: dict[str, TensorDictBase], batch_idx: int) -> None:
        if self.anneal_lr:
            self.lower_lr(self.lr)
        super().training_step(batch, batch_idx)

    def loss(self, batch: TensorDictBase) -> Tensor:
        """Computes policy gradient, value and entropy (section 4) of frames with `advantage` and `value` `[B, 1]`."""
        return self.objective(batch, *self.evaluate_frames(batch))

    def objective(self, batch: TensorDictBase, log_prob: Tensor, entropy: Tensor, value: Tensor) -> Tensor:
        """Computes the loss from what the networks say of the batch, `[B, 1]` each."""
        advantage = batch["advantage"]
        returns = advantage + batch["value"]
        weight = standardized(advantage) if self.standardize_advantages else advantage
        policy = policy_gradient_loss(log_prob, weight).mean()
        error = value_loss(value, returns).mean()
        if self._recording:
            self.record("loss/policy", policy)
            self.record("loss/value", error)
            self.record("policy/entropy", entropy.mean())
        return policy + self.value_coeff * error - self.entropy_coeff * entropy.mean()
