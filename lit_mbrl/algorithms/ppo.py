"""Proximal policy optimisation.

Schulman et al. 2017 (arXiv 1707.06347v2): the clipped objective of eq. 7 with the generalised advantages of Schulman et
al. (arXiv 1506.02438v6), and eq. 9's joint loss of policy and value. One update per training step: a gradient step of
all networks on one minibatch. Algorithm 1 is in `after_collect`, `sample` and `updates`; the
policy's and the value's part in a rollout is in `training.rollouts`.

Readings and departures, all as in OpenAI's baselines and Stable-Baselines3 if nothing else is said:

- Advantages are standardised within each minibatch; on several devices within each device's share of it.
- The Gaussian's standard deviation is a parameter that no state changes, and the environment gets the nearest action in
  [-1, 1]. Weights are orthogonal: hidden layers times sqrt(2), the policy's last layer times 0.01, the value's times 1.
- The value's loss is `value_coeff (V - R)^2`, as eq. 9; baselines have another factor 1/2.
- Log-probabilities and values of a rollout are computed once, after it, in one pass over it.
- With `normalize_observations` the statistics stand still during a rollout and its epochs, so that ratios compare the
  same inputs, and take the rollout in after it; step-wise implementations change them with each step.
- `target_kl` leaves out the rest of a rollout's minibatches after the first whose mean divergence from the policy that
  acted exceeds 1.5 times its value (Stable-Baselines3 also takes back that minibatch's own step).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.losses import approx_kl, clip_fraction, clip_objective, clipped_value_loss, standardized, value_loss
from lit_mbrl.networks import GridEncoder, ImpalaEncoder, RewardNormalizer, orthogonal_mlp
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.training.rollouts import RolloutAgent, make_actor
from lit_mbrl.utils import distributed
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, Sizes


@options
class PPO(RolloutAgent):
    """A policy and a value, trained together on rollouts; for continuous and discrete actions."""

    paper = "Schulman et al. 2017, arXiv 1707.06347"
    pixels = None  # vectors or images
    fixed_on_resume = (*Algorithm.fixed_on_resume, "scale_rewards", "init_log_std")

    hidden_sizes: Sizes | None = None
    """Hidden layers, tanh, of policy and value each; null: [64, 64], and after `encoder` none."""
    encoder: ImpalaEncoder | GridEncoder | None = None
    """Of images only: the network that policy and value share, IMPALA's (`features`, `channels`) or one for images of a
    few pixels (`convolutions`, `units`); null: IMPALA's with the sizes of its paper."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lmbda: ClosedUnitInterval = 0.95
    """Lambda of the generalised advantages."""
    lr: PositiveFloat = 3e-4
    """Adam's learning rate."""
    anneal_lr: bool = False
    """Let it fall linearly, with each rollout, to 0 at `data.total_frames`."""
    adam_eps: PositiveFloat = 1e-5
    """Adam's epsilon."""
    clip_range: PositiveFloat = 0.2
    """Epsilon of eq. 7."""
    value_clip_range: PositiveFloat | None = None
    """Cut the value's change since the rollout to this range (`losses.clipped_value_loss`); null: do not."""
    value_coeff: NonNegativeFloat = 0.5
    """Weight of the value's loss."""
    max_grad_norm: PositiveFloat = 0.5
    """Clip the gradient of all networks together to this norm."""
    target_kl: PositiveFloat | None = None
    """Leave out the rest of a rollout's epochs when the policy has moved 1.5 times so far; null: never."""
    standardize_advantages: bool = True
    """Standardise advantages within each minibatch."""
    scale_rewards: bool = False
    """Divide rewards by the standard deviation of their discounted sum (`networks.RewardNormalizer`)."""
    init_log_std: float = 0.0
    """Log standard deviation of the Gaussian policy at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_options = take(self, "encoder")
        self.reward_normalizer = RewardNormalizer(self.gamma) if self.scale_rewards else None
        self.needs_metrics = self.target_kl is not None
        # What was recorded in the training step after which the rest of the running rollout's minibatches is left out.
        self._stopped: dict[str, Tensor] | None = None

    def build(self, spec: Any) -> None:
        self.encoder, features = self.make_encoder(spec)
        hidden = ([] if spec.pixels else [64, 64]) if self.hidden_sizes is None else self.hidden_sizes
        self.actor = make_actor(spec, features, hidden, self.init_log_std)
        self.critic = orthogonal_mlp(features, hidden, 1, gain=1.0)

    def updates(self) -> Iterator[Update]:
        """One step of everything: algorithm 1's optimisation, a minibatch at a time."""
        networks = [self.encoder, self.actor, self.critic]
        yield Update("ppo", networks, self.loss, self.lr, max_grad_norm=self.max_grad_norm, eps=self.adam_eps)

    # ------------------------------------------------------------------ algorithm 1
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """The policy has run for T steps in each of N environments: computes their advantages, once for all epochs."""
        data.rollout = self.prepare_rollout(frames)
        self.update_statistics(frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """For each of K epochs, in minibatches: the next one."""
        return {"transitions": self.minibatch(data.rollout, data.minibatch_index())}

    # ------------------------------------------------------------------ a minibatch
    def prepare_rollout(self, frames: TensorDictBase) -> TensorDictBase:
        """See `RolloutAgent.prepare_rollout`; a fresh rollout has all its epochs before it."""
        self._stopped = None
        return super().prepare_rollout(frames)

    def training_step(self, batch: dict[str, TensorDictBase], batch_idx: int) -> None:
        """One minibatch; none after `target_kl` has ended the rollout's epochs."""
        if self.anneal_lr:
            self.lower_lr(self.lr)
        if self._stopped is None:
            super().training_step(batch, batch_idx)
        elif self.logs_now():
            self._recorded = dict(self._stopped)
            self.log_training()

    def on_train_metrics(self, recorded: dict[str, Tensor]) -> None:
        """Looks how far the policy has moved."""
        moved = recorded["policy/kl"].clone()
        distributed.average_([moved])
        if self.target_kl is not None and moved.item() > 1.5 * self.target_kl:
            self._stopped = dict(recorded)

    def loss(self, batch: TensorDictBase) -> Tensor:
        """Clipped objective and value (eq. 9), with what a subclass makes of the entropy."""
        log_prob, entropy, value = self.evaluate(batch["observation"], batch["action"])
        old_log_prob, old_value = batch["log_prob"], batch["value"]
        advantage, returns = self.advantages_and_returns(batch, entropy)
        policy = -clip_objective(log_prob, old_log_prob, advantage, self.clip_range).mean()
        if self.value_clip_range is None:
            error = value_loss(value, returns).mean()
        else:
            error = clipped_value_loss(value, old_value, returns, self.value_clip_range).mean()
        if self._recording:
            self.record("loss/policy", policy)
            self.record("loss/value", error)
            self.record("policy/entropy", entropy.mean())
            self.record("policy/kl", approx_kl(log_prob, old_log_prob).mean())
            self.record("policy/clip_fraction", clip_fraction(log_prob, old_log_prob, self.clip_range).mean())
        return policy + self.value_coeff * error - self.entropy_bonus(entropy)

    def advantages_and_returns(self, batch: TensorDictBase, entropy: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the ratios and the targets of the value, `[B, 1]` each; here constants without entropy."""
        advantage = batch["advantage"]
        returns = advantage + batch["value"]
        return standardized(advantage) if self.standardize_advantages else advantage, returns

    def entropy_bonus(self, entropy: Tensor) -> Tensor | float:
        """Computes what is added to the objective for the entropies `[B, 1]`; here nothing."""
        return 0.0

    # ------------------------------------------------------------------ checkpoint
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stopped"] = self._stopped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._stopped = checkpoint["stopped"]
