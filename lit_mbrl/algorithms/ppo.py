"""Proximal policy optimisation.

Schulman et al. 2017 (arXiv 1707.06347v2): the clipped objective of eq. 7 with the generalised advantages of Schulman et
al. (arXiv 1506.02438v6), and eq. 9's joint loss of policy and value. One update per training step: a gradient step of
all networks on one minibatch. Algorithm 1 is in `after_collect`, `sample` and `updates`.

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

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import approx_kl, clip_fraction, clip_objective, clipped_value_loss, standardized, value_loss
from lit_mbrl.networks import CategoricalActor, GaussianActor, ImpalaEncoder, RewardNormalizer, orthogonal_mlp
from lit_mbrl.returns import generalized_advantages
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, Sizes

_ROWS = 1024  # frames that are evaluated at a time after a rollout


@options
class PPO(Algorithm):
    """A policy and a value, trained together on rollouts; for continuous and discrete actions."""

    paper = "Schulman et al. 2017, arXiv 1707.06347"
    learns_from = "rollouts"
    continuous_actions = False  # discrete ones, too
    pixels = None  # vectors or images
    fixed_on_resume = (*Algorithm.fixed_on_resume, "scale_rewards", "init_log_std")

    hidden_sizes: Sizes | None = None
    """Hidden layers, tanh, of policy and value each; null: [64, 64], and after `encoder` none."""
    encoder: ImpalaEncoder | None = None
    """Of images only: the network that policy and value share; null: IMPALA's with the sizes of its paper."""
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
        if spec.discrete:
            self.actor: nn.Module = CategoricalActor(features, spec.action_dim, hidden)
        else:
            self.actor = GaussianActor(features, spec.action_dim, hidden, self.init_log_std)
        self.critic = orthogonal_mlp(features, hidden, 1, gain=1.0)

    def make_encoder(self, spec: Any) -> tuple[nn.Module, int]:
        """Makes the layers that policy and value share, and counts their features; none for vectors."""
        if not spec.pixels:
            return nn.Identity(), spec.observation_dim
        network = (self.encoder_options or ImpalaEncoder()).build(spec.observation_shape)
        return network, network.features

    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; vectors need no encoder."""
        super().check(spec)
        require(
            self.encoder_options is None or spec.pixels,
            "model.encoder",
            self.encoder_options,
            f"null: the observations of {spec.name} are no images",
        )

    def updates(self) -> Iterator[Update]:
        """One step of everything: algorithm 1's optimisation, a minibatch at a time."""
        networks = [self.encoder, self.actor, self.critic]
        yield Update("ppo", networks, self.loss, self.lr, max_grad_norm=self.max_grad_norm, eps=self.adam_eps)

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        with self._precision():
            return self.actor.mode(self.encoder(observation))

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        with self._precision():
            return self.actor.sample(self.encoder(observation))

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of an action, entropy of the policy, and value, `[B, 1]` each."""
        features = self.encoder(observation)
        return *self.actor.log_prob_entropy(features, action), self.critic(features)

    # ------------------------------------------------------------------ algorithm 1
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """The policy has run for T steps in each of N environments: computes their advantages, once for all epochs."""
        data.rollout = self.prepare_rollout(frames)
        self.update_statistics(frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """For each of K epochs, in minibatches: the next one."""
        return {"transitions": self.minibatch(data.rollout, data.minibatch_index())}

    # ------------------------------------------------------------------ a rollout
    @torch.no_grad()
    def prepare_rollout(self, frames: TensorDictBase) -> TensorDictBase:
        """Values and advantages of a fresh rollout `[N, T]`, raw, by the policy and the statistics that have acted.

        Returns:
            `[T, N]`: `observation` (normalised), `action`, and of that policy `log_prob`, `value` and `advantage`,
            `[T, N, 1]` each.
        """
        self._stopped = None
        frames = frames.to(self.device)
        following = frames["next"]
        terminated = following["terminated"]
        done = terminated | following["truncated"]
        reward = following["reward"]
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer(reward, done)
        # In the order of time: [T, N, ...], as they lie in memory.
        observation, action = (x.transpose(0, 1) for x in (self.normalize(frames["observation"]), frames["action"]))
        log_prob, value = self._evaluate_rollout(observation, action)
        values = value.transpose(0, 1)
        next_value = self._next_values(values, following["observation"], terminated, done)
        advantage = generalized_advantages(reward, values, next_value, terminated, done, self.gamma, self.lmbda)
        rollout = {"observation": observation, "action": action, "log_prob": log_prob, "value": value}
        rollout["advantage"] = advantage.transpose(0, 1)
        return TensorDict(rollout, observation.shape[:2], device=self.device)

    def _evaluate_rollout(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        with self._precision():
            for x, u in zip(observation.flatten(0, 1).split(_ROWS), action.flatten(0, 1).split(_ROWS), strict=True):
                log_prob, _, value = self.evaluate(x, u)
                parts.append((log_prob, value))
        log_probs, values = (torch.cat(part).view(*observation.shape[:2], 1) for part in zip(*parts, strict=True))
        return log_probs, values

    def _next_values(self, values: Tensor, following: Tensor, terminated: Tensor, done: Tensor) -> Tensor:
        """`V` of the true successors, `[N, T, 1]`: the next row's, or evaluated where an episode or rollout ends."""
        next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        apart = done.clone()
        apart[:, -1] = True
        apart = (apart & ~terminated).squeeze(-1)
        with self._precision():
            parts = [self.critic(self.encoder(x)) for x in self.normalize(following[apart]).split(_ROWS)]
        next_values[apart] = torch.cat(parts) if parts else next_values[apart]
        return next_values

    def _precision(self) -> Any:
        """The trainer's precision, as the losses have it: a ratio shall not compare two roundings."""
        return nullcontext() if self._trainer is None else self.trainer.precision_plugin.forward_context()

    def restart_episodes(self, envs: Iterable[int]) -> None:
        if self.reward_normalizer is not None:
            self.reward_normalizer.restart(envs)

    def minibatch(self, rollout: TensorDictBase, index: Tensor) -> TensorDictBase:
        """The rows of a prepared rollout `[T, N]` at `index` `[B]`, each in 0 ... T N - 1; `[B]`."""
        rows = {key: value.flatten(0, 1).index_select(0, index) for key, value in rollout.items()}
        return TensorDict(rows, index.shape)

    # ------------------------------------------------------------------ a minibatch
    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself: a rollout's observations are normalised once."""
        return batch

    def training_step(self, batch: dict[str, TensorDictBase], batch_idx: int) -> None:
        """One minibatch; none after `target_kl` has ended the rollout's epochs."""
        if self.anneal_lr:
            data = self.trainer.datamodule
            self.trainer.optimizers[0].param_groups[0]["lr"] = self.lr * (1.0 - data.rollout_start / data.total_frames)
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
