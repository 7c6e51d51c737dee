"""NAF: Q-learning for continuous actions, by an action-value whose maximum is known, and imagination rollouts.

Gu et al. 2016, "Continuous Deep Q-Learning with Model-based Acceleration" (arXiv 1603.00748v1). Algorithm 1: the
action-value is `Q(x, u) = V(x) - 1/2 (u - mu(x))^T P(x) (u - mu(x))`, so `mu` is the greedy action and `V` its value,
and regression towards `r + gamma V'(x')` is Q-learning. `P = L L^T` with a triangular `L`.

Algorithm 2, with `rollout_length: l`, adds transitions that local linear dynamics imagine:

    every `rollout_freq` environment steps: from states of the last fit's episodes, `l` steps in the model,
                                            with noisy greedy actions, into a buffer of their own   (`after_collect`)
    every `episodes_per_fit` episodes: fit the dynamics to these episodes                           (`after_collect`)
    training steps: one on real transitions, then `imagined_updates` on imagined ones               (`sample`)

Readings and departures:

- `mu` is the tanh of its network's output, as in public code; the paper's actions are not bounded by the network.
- Of the target network `V'` alone is read, so only that is kept.
- Batch normalization, one of the paper's most sensitive choices, is left out; `normalize_observations` scales inputs.
- A termination has no value after it, which the paper does not say.
- The exploration by precision (section 8.2) draws the increments of the Ornstein-Uhlenbeck process from `N(0, c P^-1)`.
  The paper adapts `c` by a heuristic that it does not print; `precision_scale: null` chooses it for each state so that
  the mean variance is that of `exploration_sigma`. The paper uses the precision after 50 000 steps: `precision_starts`.
- All real episodes follow the noisy policy: algorithm 2 with p = 1, its iLQG controllers being optional. The paper's
  gain comes from imagination, and iLQG was not consistently better than the policy (sections 5.1, 6.2).
- The episodes of the last fit (the algorithm's B_old) are in the replay; their place there is noted. Those of the
  warm-up count.
- Five episodes are too few rows for one step. The rows of the `model_window` steps before and after count, too, and a
  ridge pulls towards one linear model of all steps, where Levine and Abbeel 2014 have a mixture of such as a prior.
- Where episodes begin in many states, the paper proposes a model for each of a mixture of start states: `initial_modes`
  groups of episodes by their first observation. With as many as episodes each has dynamics along its own path.
- The dynamics' noise is drawn. The exploration noise of imagined actions begins anew with each rollout.
- Linear dynamics go far astray where they extrapolate, and values with them (the paper saw Q-learning diverge, section
  6.3). With `range_margin` a rollout ends before it leaves the range of the fit's observations; the paper has no such.
- The reward is the task's own (`envs/tasks/rewards.py`) or, where that is not known, predicted as the state is. A
  termination is imagined where its rule is known; it ends the rollout, as does a number that is not finite.
- The paper counts updates per environment step, I on real and I l on imagined batches: `data.utd_ratio` is I (1 + l).
  Those on imagined ones are left out, and move no target, while there are no imagined transitions.
- Imagination is switched off after `imagination_steps`; the paper has 130 episodes, 20 000 steps, in one of its tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import precision_noise, precision_scale, q_loss, quadratic_advantage, td_target
from lit_mbrl.models.time_varying import TimeVaryingDynamics, group_starts
from lit_mbrl.networks import NormalizedAdvantage
from lit_mbrl.networks.exploration import GaussianNoise, OrnsteinUhlenbeckNoise
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Sizes,
)

Noise = OrnsteinUhlenbeckNoise | GaussianNoise
# What the loss reads of a transition, real or imagined.
_READ = ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated"))


@options
class NAF(Algorithm):
    """An action-value that is quadratic in the action. Needs `lit_mbrl.callbacks.SoftTargetUpdate`.

    With a `rollout_length` it imagines, and the options below that one count.
    """

    paper = "Gu et al. 2016, arXiv 1603.00748"
    takes_relabelled = True
    fixed_on_resume = (*Algorithm.fixed_on_resume, "rollout_length", "episodes_per_fit", "initial_modes", "reward")

    hidden_sizes: Sizes = (200, 200)
    """Hidden layers of the networks of value, mean and precision."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lr: PositiveFloat = 1e-3
    """Adam's learning rate."""
    exploration: Literal["ou", "gaussian", "precision"] = "ou"
    """Noise on collected actions: Ornstein-Uhlenbeck (`"ou"`), independent (`"gaussian"`), or Ornstein-Uhlenbeck whose
    increments have the covariance `c P^-1` (`"precision"`)."""
    exploration_sigma: NonNegativeFloat = 0.3
    """The noise's standard deviation, of the increments of Ornstein-Uhlenbeck noise, for actions in [-1, 1]."""
    ou_theta: ClosedUnitInterval = 0.15
    """The Ornstein-Uhlenbeck noise's rate of return; 1: it is independent."""
    precision_scale: PositiveFloat | None = None
    """`c`; null: for each state so that the mean variance over the action's dimensions is `exploration_sigma^2`."""
    precision_starts: NonNegativeInt = 0
    """Environment steps until which exploration by precision is `"ou"`."""
    rollout_length: NonNegativeInt = 0
    """Steps `l` of imagination rollouts; 0: there are none."""
    imagined_updates: NonNegativeInt | None = None
    """Training steps on imagined transitions after each on real ones; null: `rollout_length`. `data.utd_ratio` counts
    both."""
    rollout_freq: PositiveInt | None = None
    """Environment steps between two rollouts; null: `data.batch_size`."""
    rollout_batch_size: PositiveInt | None = None
    """Start states of a rollout; null: `data.batch_size`."""
    imagined_capacity: PositiveInt = 100_000
    """Imagined transitions kept."""
    imagination_steps: PositiveInt | None = None
    """Environment steps after which imagination is switched off; null: never."""
    episodes_per_fit: PositiveInt = 5
    """Episodes that end between two fits of the dynamics, and that they are fitted to."""
    initial_modes: PositiveInt = 1
    """Groups of these episodes, by their first observations, that have dynamics of their own."""
    model_window: NonNegativeInt = 1
    """Steps before and after each step of an episode whose rows count in its regression, too."""
    model_ridge: PositiveFloat = 1e-3
    """Penalty, per row, of the squared differences of a step's weights from those of one model of all steps, in units
    of the standard deviations of observation and action."""
    range_margin: NonNegativeFloat | None = None
    """A rollout ends before it leaves the range of the observations of the last fit by more than this share of its
    width, in any of their numbers; null: it does not."""
    reward: Literal["known", "learned", "auto"] = "auto"
    """Of imagined transitions: `"known"` (`envs/tasks/rewards.py`), `"learned"` by the dynamics, or `"auto"`: known
    where it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.imagined_updates is None:
            self.imagined_updates = self.rollout_length
        none = "0 or null while model.rollout_length is 0"
        require(
            self.rollout_length > 0 or not self.imagined_updates, "model.imagined_updates", self.imagined_updates, none
        )
        groups = f"at most model.episodes_per_fit={self.episodes_per_fit}"
        require(self.initial_modes <= self.episodes_per_fit, "model.initial_modes", self.initial_modes, groups)
        for option, unset in (("precision_scale", None), ("precision_starts", 0)):
            value, other = getattr(self, option), "left out unless model.exploration is precision"
            require(self.exploration == "precision" or value == unset, f"model.{option}", value, other)
        self.exploration_noise = self.make_noise()

    def make_noise(self) -> Noise:
        """Returns the noise of episodes that are about to begin."""
        if self.exploration == "gaussian":
            return GaussianNoise(self.exploration_sigma)
        return OrnsteinUhlenbeckNoise(self.exploration_sigma, self.ou_theta)

    def build(self, spec: Any) -> None:
        self.critic = NormalizedAdvantage(spec.observation_dim, spec.action_dim, self.hidden_sizes)
        self.value_target = copy.deepcopy(self.critic.value)
        if self.rollout_length:
            self._known_reward = None if self.reward == "learned" else spec.reward
            sizes = spec.max_episode_steps, spec.observation_dim, spec.action_dim
            self.dynamics = TimeVaryingDynamics(*sizes, self.initial_modes, self._known_reward is None)
            self.episodes = nn.Buffer(torch.zeros((), dtype=torch.long))  # which have ended
            # Of each episode of the last fit: the number of its first frame in the replay, its length, its group.
            self.fitted = nn.Buffer(torch.zeros(self.episodes_per_fit, 3, dtype=torch.long))

    def check(self, spec: Any) -> None:
        super().check(spec)
        if self.rollout_length:
            limit = "a number: with model.rollout_length the dynamics have as many steps as an episode may have"
            require(spec.max_episode_steps is not None, "data.env.max_episode_steps", None, limit)
            known = f"learned or auto: envs/tasks/rewards.py knows no reward of {spec.name} as it is configured"
            require(self.reward != "known" or spec.reward is not None, "model.reward", "known", known)

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` if the replay cannot hold the episodes that rollouts start from."""
        if self.rollout_length:
            # They start from those of one fit until the next, when as many have followed.
            needed = (2 * self.episodes_per_fit + data.env.num_envs) * (data.spec.max_episode_steps or 0)
            few = f"at least {needed}: the episodes of two fits of the dynamics (model.episodes_per_fit)"
            require(data.capacity >= min(needed, data.total_frames), "data.capacity", data.capacity, few)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one that imagine, whose dynamics would be fitted to other data."""
        require(count == 1 or not self.rollout_length, "trainer.devices", count, "1 with model.rollout_length")

    def updates(self) -> Iterator[Update]:
        """One gradient step of the action-value: algorithm 1."""
        yield Update("critic", self.critic, self.critic_loss, self.lr)

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.critic.value, self.value_target

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        return self.critic.mean(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.noisy_action(observation, is_init, self.exploration_noise)

    def noisy_action(self, observation: Tensor, is_init: Tensor, noise: Noise) -> Tensor:
        """The greedy action `[N, A]` with the next step of a noise.

        Args:
            observation: as the networks see it, `[N, O]`.
            is_init: whether an episode begins, `[N, 1]`.
            noise: `make_noise`'s.
        """
        mean = self.critic.mean(observation)
        if self.exploration != "precision" or self.env_steps < self.precision_starts:
            return noise(mean, is_init)
        factor = self.critic.factor(observation)
        scale = self.precision_scale or precision_scale(factor, self.exploration_sigma)
        return noise(mean, is_init, precision_noise(torch.randn_like(mean), factor, scale))

    # ------------------------------------------------------------------ algorithm 2
    def add_buffers(self, data: Any) -> None:
        if self.rollout_length:
            data.add_buffer("imagined", self.imagined_capacity, "model.imagined_capacity")

    def imagines(self, data: Any) -> bool:
        """Returns whether imagination is on."""
        return self.rollout_length > 0 and (self.imagination_steps is None or data.env_steps < self.imagination_steps)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Rolls the policy out in the dynamics, and refits them, where it is time to."""
        super().after_collect(data, frames)
        if not self.imagines(data):
            return
        if data.schedule.due("rollout", every=self.rollout_freq or data.batch_size) and self.fitted.any():
            self.fill(data)
        ended = int((frames["next", "terminated"] | frames["next", "truncated"]).sum())
        if ended:
            before = int(self.episodes)
            self.episodes += ended
            if (before + ended) // self.episodes_per_fit > before // self.episodes_per_fit:
                self.fit_dynamics(data.replay)

    def sample(self, data: Any) -> dict[str, TensorDictBase | None]:
        """A batch of real transitions, then `imagined_updates` of imagined ones; None while there are none."""
        if not self.rollout_length:
            return data.sample()
        if (data.train_steps - 1) % (1 + self.imagined_updates) == 0:
            return {"transitions": data.replay.sample_transitions(data.batch_size).select(*_READ)}
        imagined = data.buffers["imagined"]
        there = self.imagines(data) and len(imagined) > 0
        return {"transitions": imagined.sample(data.batch_size) if there else None}

    def logs_now(self) -> bool:
        """Returns whether the metrics of the running training step are logged: of the first on a real batch from each
        multiple of `log_every_n_steps` on, since those multiples may always fall on imagined ones."""
        period, every, now = 1 + self.imagined_updates, self.trainer.log_every_n_steps, self.train_steps
        return every > 0 and (now - 1) % period == 0 and now // every > max(now - period, 0) // every

    def fill(self, data: Any) -> None:
        """Adds rollouts from states of the last fit's episodes to the imagined transitions."""
        count, starts = 0, self.draw_starts(data.replay, self.rollout_batch_size or data.batch_size)
        for frames in self.imagine(*starts):
            data.buffers["imagined"].extend(frames)
            count += len(frames)
        self._model_rollouts += count
        self.note({"rollout/transitions": float(count)})

    def draw_starts(self, replay: Any, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws states of the last fit's episodes uniformly, with replacement.

        Returns:
            Raw observations `[count, O]`, their steps in their episodes and the groups of these, `[count]`.
        """
        first, length, mode = self.fitted.cpu().unbind(1)
        until = length.cumsum(0)
        drawn = torch.randint(int(until[-1]), (count,))
        episode = torch.searchsorted(until, drawn, right=True)
        step = drawn - (until - length)[episode]
        frames = replay.numbered_frames(first[episode] + step * replay.num_envs)
        return tuple(x.to(self.device) for x in (frames["observation"], step, mode[episode]))

    @torch.no_grad()
    def imagine(self, observation: Tensor, step: Tensor, mode: Tensor) -> Iterator[TensorDict]:
        """Rolls the noisy policy out in the dynamics.

        Args:
            observation: raw start states `[N, O]`.
            step: of their episodes, `[N]`.
            mode: which dynamics, `[N]`.

        Yields:
            The transitions of each step, `[n]` with n <= N, keys as in `data.buffers.imagined`: those of the samples
            that had not ended before it.
        """
        noise, outputs = self.make_noise(), self.dynamics.offset.shape[-1]
        alive = torch.ones_like(step, dtype=torch.bool)
        for k in range(self.rollout_length):
            begins = torch.full_like(observation[:, :1], k == 0, dtype=torch.bool)
            action = self.noisy_action(self.normalize(observation), begins, noise)
            drawn = torch.randn(len(observation), outputs, device=observation.device)
            following, reward = self.dynamics.step(mode, step + k, observation, action, drawn)
            if reward is None:
                reward = self._known_reward(observation, action, following)
            terminated = torch.zeros_like(reward, dtype=torch.bool)
            if self.spec.terminated is not None:
                terminated = self.spec.terminated(observation, action, following)
            alive = alive & torch.cat([following, reward], -1).isfinite().all(-1)
            if self.range_margin is not None:
                alive = alive & self.dynamics.near(following, self.range_margin)
            if not alive.any():
                return
            after = {"observation": following, "reward": reward, "terminated": terminated}
            frames = TensorDict({"observation": observation, "action": action, "next": after}, [len(observation)])
            yield frames[alive]
            alive, observation = alive & ~terminated.squeeze(-1), following

    def fit_dynamics(self, replay: Any) -> None:
        """Fits the dynamics to the newest episodes, from which rollouts start then."""
        first, length = replay.latest_episodes(self.episodes_per_fit).unbind(1)
        steps = torch.arange(int(length.max())).minimum(length.unsqueeze(1) - 1)  # [E, T]; behind the end the last
        frames = replay.numbered_frames(first.unsqueeze(1) + steps * replay.num_envs).to(self.device)
        following, length = frames["next", "observation"], length.to(self.device)
        if self._known_reward is None:
            following = torch.cat([following, frames["next", "reward"]], -1)
        mode = group_starts(frames["observation"][:, 0], self.initial_modes)
        options = {"window": self.model_window, "ridge": self.model_ridge}
        residual = self.dynamics.fit(frames["observation"], frames["action"], following, length, mode, **options)
        self.fitted.zero_()
        self.fitted[: len(first)] = torch.stack([first.to(self.device), length, mode], 1)
        self.note({"model/residual": float(residual)})

    # ------------------------------------------------------------------ loss
    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared temporal-difference error: the loss of algorithm 1."""
        following = batch["next"]
        with torch.no_grad():
            next_value = self.value_target(following["observation"])
        target = td_target(following["reward"], following["terminated"], next_value, self.gamma)
        value, mean, factor = self.critic(batch["observation"])
        advantage = quadratic_advantage(batch["action"], mean, factor)
        q = value + advantage
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        self.record("q/advantage", advantage.mean)
        self.record("q/precision", lambda: factor.square().sum((-2, -1)).mean() / factor.shape[-1])
        return q_loss(q.unsqueeze(0), target).mean()
