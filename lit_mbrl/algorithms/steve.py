"""STEVE: critics whose target mixes value expansions of all horizons, each weighed by how much ensembles agree on it.

Buckman et al. 2018, "Sample-Efficient Reinforcement Learning with Stochastic Ensemble Value Expansion" (arXiv
1807.01675v2), section 3, on DDPG (`STEVE`, the paper's) and on SAC (`STEVESAC`); and the method that it extends, MVE
(Feinberg et al. 2018, arXiv 1803.00101v1), on DDPG (`MVEDDPG`). From a replayed `(x, u, r, x_0)`:

    x_0 --policy, T_1--> x_1 --> ... x_H    M rollouts, one for each transition model
    ...                                     N reward models and L critics on all of them
    x_0 --policy, T_M--> x_1 --> ... x_H

    T_i     = r + gamma r_n(x_0, u_0, x_1) + ... + gamma^i r_n(x_{i-1}, u_{i-1}, x_i) + gamma^{i+1} Q_l(x_i, u_i)
    target  = sum_i w_i mean(T_i),    w_i ~ 1 / variance(T_i)    over all L M N combinations, 0 <= i <= H

`T_0` is the model-free target, so that where the models disagree the algorithm is DDPG. Every step of the sum counts
with the probability that the rollout is still alive before it. The critics regress the target; the actor ascends the
mean of the critics at real states. Targets are constants: no gradient goes through a model.

The soft form. SAC's value of a state is `V_l(x) = Q_l(x, u) - alpha log pi(u | x)` at a sampled `u`, and each step
pays `r - alpha log pi` from `x_0` on; so `T_i` has `r_n(x_k, u_k, x_{k+1}) - alpha log pi(u_k | x_k)` for `k < i`,
and ends in `V_l(x_i)`. A member of STEVE's critics stands for one whole estimate of SAC's, which is the least of a
pair: `L` pairs, hence with one of each member and `H = 0` it is SAC. All rollouts of a transition take the same noise
for the policy: the variance is about what the ensembles do not know, not about how random the policy is.

Readings and departures (what the paper leaves open is as in its public code, unless said otherwise):

- Members learn from different rows of each batch ("different data" in the paper): each from an equal share of them,
  where the code draws the member of every row. The mean loss is the same in expectation, and a batch goes once through
  the networks instead of `L` times. `data.batch_size` has to be a multiple of the numbers of members. Of a small batch
  a share is a noisy gradient: `member_data: batch` gives every member all rows.
- The policy of a target is the current one. DDPG's own, which follows slowly, by `target_policy`.
- Models and policy learn in the same training step and from the same batch, the models first. The code has a process
  for each, whose policy takes over the models' weights every 500 updates only.
- What the code has and the paper's section 3 has not is off unless set: updates of the models alone before the policy's
  first (`pretrain_updates`), its exploration in place of DDPG's noise (`exploration_chance`), and its penalty of
  saturated actions (`action_penalty`).
- Networks start from torch's distribution of a linear layer, as all others here; the code has Glorot's.
- MVE trains the critic at imagined states, too (TD-k trick), each of the H + 1 residuals weighed by the probability
  that its state is reached: as `mve.py` reads it. STEVE does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.imagination import Rollout, imagine
from lit_mbrl.losses import dpg_loss, q_loss, soft_policy_loss, td_target
from lit_mbrl.models import SplitEnsembleConfig, open_loop_errors
from lit_mbrl.networks import BatchedQEnsemble
from lit_mbrl.networks.ensemble import MemberData, member_rows
from lit_mbrl.returns import candidate_moments, inverse_variance_weights, survival, td_k_targets
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt, Sizes


@options
class EnsembleExpansion(Algorithm):
    """Computes STEVE's targets, for both of its forms: ensembles, their rollouts, and the mix of the candidates.

    A base for a model-free algorithm to stand behind: `class STEVE(EnsembleExpansion, DDPG)`.
    """

    takes_relabelled = False  # its models learn from the same batches
    twins: ClassVar[int] = 1  # state-action values of a member of the critic
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    hidden_sizes: Sizes = (256, 256)
    """Hidden layers of the actor and of each critic."""
    horizon: NonNegativeInt = 3
    """Model steps H of the longest candidate; 0: the model-free target of an ensemble of critics."""
    num_critics: PositiveInt = 4
    """Members `L` of the critic."""
    world_model: SplitEnsembleConfig | None = None
    """Transition, reward and termination models (`lit_mbrl.models.SplitEnsembleConfig`); null: with its defaults."""
    member_data: MemberData = "shares"
    """Rows of a batch that a member of any ensemble learns from: its own equal share (`"shares"`, the paper's), or all
    of them (`"batch"`), so that members differ by their initial weights alone."""
    pretrain_updates: NonNegativeInt = 0
    """Updates of the models at the end of the warm-up, before the first of the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.world_model_config = take(self, "world_model") or SplitEnsembleConfig()
        self._batch_size: int | None = None

    def check_data(self, data: Any) -> None:
        self._batch_size = data.batch_size
        self.check_devices(1)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` unless each member has an equal share of a device's share of the batch."""
        if self.member_data == "batch":
            return
        sizes = {"model.num_critics": self.num_critics}
        if self.horizon > 0:
            sizes["model.world_model.num_transitions"] = self.world_model_config.num_transitions
            sizes["model.world_model.num_rewards"] = self.world_model_config.num_rewards
        for option, members in sizes.items():
            devices = f" times the number of devices, {count}" if count > 1 else ""
            expected = f"a multiple of {option}={members}{devices}: members share it"
            fits = self._batch_size is None or self._batch_size % (members * count) == 0
            require(fits, "data.batch_size", self._batch_size, expected)

    def build(self, spec: Any) -> None:
        super().build(spec)
        if self.horizon > 0:
            sizes, rule = (spec.observation_dim, spec.action_dim), self.termination_rule()
            self.world_model = self.world_model_config.build(*sizes, rule, self.member_data)

    def make_critic(self, spec: Any) -> BatchedQEnsemble:
        sizes = spec.observation_dim, spec.action_dim
        return BatchedQEnsemble(*sizes, self.hidden_sizes, self.num_critics, self.twins)

    # ------------------------------------------------------------------ updates
    def updates(self) -> Iterator[Update]:
        """The models, then the model-free algorithm's updates."""
        yield from self.model_updates()
        yield from super().updates()

    def model_updates(self) -> Iterator[Update]:
        """Transitions, rewards and, where they are learned, terminations."""
        if self.horizon == 0:
            return
        model, lr = self.world_model, self.world_model_config.lr
        yield Update("dynamics", model.dynamics, model.dynamics_loss, lr)
        yield Update("reward", model.reward_model, model.reward_loss, lr)
        if model.termination_model is not None:
            yield Update("termination", model.termination_model, model.termination_loss, lr)

    def model_rollouts(self, batch_size: int) -> int:
        return 0 if self.horizon == 0 else batch_size * self.world_model_config.num_transitions

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Takes the models' first updates, if the warm-up has just ended."""
        super().after_collect(data, frames)
        if self.horizon and self.pretrain_updates and data.schedule.due("pretrain", every=data.total_frames):
            self.pretrain(data)

    def pretrain(self, data: Any) -> None:
        """Takes `pretrain_updates` of the models, each on a batch of its own."""
        optimizers: Any = self.optimizers()
        count = len(list(self.model_updates()))
        for step in range(self.pretrain_updates):
            self.notify_progress(f"training the models: update {step + 1:,} of {self.pretrain_updates:,}")
            batch = self.prepare_batch(data.sample()["transitions"].to(self.device))
            for update, optimizer in zip(self.update_list[:count], optimizers, strict=False):
                self.gradient_step(update, optimizer, batch, {})
        self.finite.flush()

    # ------------------------------------------------------------------ targets
    def rollout_policy(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action `[B, A]` and, of a stochastic policy, its log-probability `[B, 1]`, otherwise zeros."""
        raise NotImplementedError

    def rollout_noise(self, batch_size: int) -> Tensor:
        """The policy's noise `[B, H+1, A]`."""
        raise NotImplementedError

    def entropy_bonus(self, log_prob: Tensor) -> Tensor | None:
        """Returns the entropy term of a step's reward, `-alpha log pi`; None: there is none."""
        return None

    def imagine(self, observation: Tensor) -> Rollout:
        """Rolls the policy out in every transition model from `[B, O]`: rows `[M B]`, rewards `[M B, H, N]`."""
        noise = self.rollout_noise(len(observation))
        if self.horizon == 0:
            return imagine(self.rollout_policy, None, observation, noise)
        members = self.world_model.transitions
        rows, noise = observation.repeat(members, 1), noise.repeat(members, 1, 1)
        return imagine(self.rollout_policy, self.world_model, rows, noise)

    def candidates(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Mean and variance `[B, H+1, 1]` of the candidate targets: `returns.candidate_moments`."""
        following = batch["next"]
        rollout = self.imagine(following["observation"])
        value = self.critic_target(rollout.observation, rollout.action).squeeze(-1).movedim(0, -1)  # [M B, H+1, L]
        reward = rollout.reward  # [M B, H, N], or without a model [B, 0, 1]
        bonus = self.entropy_bonus(rollout.log_prob)
        if bonus is not None:
            reward, value = reward + bonus[:, :-1], value + bonus
        shape = (-1, len(batch))
        return candidate_moments(
            following["reward"],
            following["terminated"],
            reward.unflatten(0, shape),
            value.unflatten(0, shape),
            rollout.termination_prob.unflatten(0, shape),
            self.gamma,
        )

    def mixed_target(self, batch: TensorDictBase) -> Tensor:
        """The critics' target `[B, 1]`, a constant: the candidates' means, weighed by their inverse variances."""
        with torch.no_grad():
            mean, variance = self.candidates(batch)
            weight = inverse_variance_weights(variance)
            for i in range(self.horizon + 1):
                self.record(f"target/weight_{i}", weight[:, i].mean)
                self.record(f"target/variance_{i}", variance[:, i].mean)
            return (weight * mean).sum(1)

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared error of each member on its rows of the batch, against the one mixed target."""
        rows = partial(member_rows, members=self.num_critics, data=self.member_data)
        target = self.mixed_target(batch)
        q = self.critic.of_members(rows(batch["observation"]), rows(batch["action"]))  # [K, L, B / L, 1]
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        return q_loss(q, rows(target)).mean((2, 3)).sum()

    # ------------------------------------------------------------------ evaluation
    def episode_metrics(self, episodes: TensorDictBase) -> dict[str, Tensor]:
        """Errors of the models' mean prediction over fresh evaluation episodes: `models.open_loop_errors`."""
        return {} if self.horizon == 0 else open_loop_errors(self.world_model, episodes, self.horizon)


@options
class STEVE(EnsembleExpansion, DDPG):
    """STEVE on DDPG, as in the paper. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Buckman et al. 2018, arXiv 1807.01675"

    target_policy: bool = False
    """Take the actions of targets from DDPG's slowly following policy."""
    exploration_chance: ClosedUnitInterval | None = None
    """Explore as the public code: with this probability a number `tanh(m)` of an action becomes `tanh(m + n)`, with `n`
    from `N(0, 1)`. Null: DDPG's noise."""
    action_penalty: NonNegativeFloat = 0.0
    """Weight of the mean of `m^2` in the actor's loss (the code: 1e-3), which keeps `tanh` from saturating."""

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        if self.exploration_chance is None:
            return super().explore(observation, is_init)
        mean = self.actor.net(observation)
        chosen = torch.rand_like(mean) < self.exploration_chance
        return torch.tanh(mean + torch.where(chosen, torch.randn_like(mean), 0.0))

    def rollout_policy(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action = self.actor_target(observation) if self.target_policy else self.actor(observation)
        return action, action.new_zeros(len(action), 1)

    def rollout_noise(self, batch_size: int) -> Tensor:
        return torch.empty(batch_size, self.horizon + 1, 0, device=self.device)

    def actor_loss(self, batch: TensorDictBase) -> Tensor:
        """Deterministic policy gradient through the mean of the critics."""
        observation = batch["observation"]
        mean = self.actor.net(observation)
        q = self.critic(observation, torch.tanh(mean)).mean(0)
        return dpg_loss(q).mean() + self.action_penalty * mean.square().mean()


@options
class STEVESAC(EnsembleExpansion, SAC):
    """STEVE on SAC: soft candidates, a member of the critic is a pair. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Buckman et al. 2018, arXiv 1807.01675"
    twins = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.orthogonal_init, "model.orthogonal_init", True, "false: the critics are one batched network")

    def rollout_policy(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor.sample(observation, noise)

    def rollout_noise(self, batch_size: int) -> Tensor:
        return self.noise(batch_size, self.horizon + 1)

    def entropy_bonus(self, log_prob: Tensor) -> Tensor:
        return -self.alpha * log_prob

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """SAC's policy objective at the mean of the members' values; and the log-probabilities `[B, 1]`, constants."""
        action, log_prob = self.sample_policy(batch["observation"])
        q = self.critic(batch["observation"], action).mean(0, keepdim=True)
        self.record_policy(log_prob)
        return soft_policy_loss(q, log_prob, self.alpha).mean(), log_prob.detach()


@options
class MVEDDPG(STEVE):
    """MVE on DDPG: one model, one critic, one horizon. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Feinberg et al. 2018, arXiv 1803.00101"
    num_critics: ClassVar[int] = 1  # type: ignore[misc]  # no option here

    horizon: PositiveInt = 3
    """Model steps H of the target."""
    td_k: bool = True
    """Train the critic at the imagined states as well (TD-k trick)."""
    world_model: SplitEnsembleConfig | None = None
    """Transition, reward and termination model (`lit_mbrl.models.SplitEnsembleConfig`); null: one of each, otherwise
    with its defaults."""

    def __post_init__(self) -> None:
        self.world_model = self.world_model or SplitEnsembleConfig(num_transitions=1, num_rewards=1)
        super().__post_init__()
        for option in ("num_transitions", "num_rewards"):
            members = getattr(self.world_model_config, option)
            require(members == 1, f"model.world_model.{option}", members, "1 with MVEDDPG; more are STEVE's")

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared residual of the H-step target and, with `td_k`, of those at the imagined states."""
        following = batch["next"]
        observation, action = batch["observation"].unsqueeze(1), batch["action"].unsqueeze(1)
        with torch.no_grad():
            rollout = self.imagine(following["observation"])
            last = self.critic_target(rollout.observation[:, -1], rollout.action[:, -1])[0]
            imagined = td_k_targets(rollout.reward, last, self.gamma, rollout.termination_prob)  # [B, H, 1]
            target = td_target(following["reward"], following["terminated"], imagined[:, 0], self.gamma).unsqueeze(1)
            reached = torch.ones_like(target)
            if self.td_k:
                target = torch.cat([target, imagined], 1)
                alive = survival(rollout.termination_prob)[:, :-1] * ~following["terminated"].unsqueeze(1)
                reached = torch.cat([reached, alive], 1)
                observation = torch.cat([observation, rollout.observation[:, :-1]], 1)
                action = torch.cat([action, rollout.action[:, :-1]], 1)
        q = self.critic(observation, action)  # [1, B, H+1, 1]
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        return (reached * q_loss(q, target)).mean()
