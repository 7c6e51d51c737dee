"""ME-TRPO: trust-region policy optimisation on what an ensemble of deterministic models imagines.

Kurutach et al. 2018, "Model-Ensemble Trust-Region Policy Optimization" (arXiv 1802.10592v2), algorithm 2:

    repeat
        collect samples of the environment with the policy                          (data)
        train all models with all samples                                           (`after_collect`)
        repeat
            imagine samples with the policy, each step in a model drawn at random   (`sample`)
            one step of TRPO on them                                                (`updates`)
            estimate the policy's performance in each of the models                 (`training_step`)
        until the performance stops improving

A collection is `data.frames_per_batch` environment steps, and `data.train_steps_per_collection` policy updates follow
on it at the most: once the performance has stopped improving, the training steps that are left do nothing.

Readings and departures (what the paper leaves out is its public code's):

- The policy is estimated every `validation_freq` updates, and has improved if its return is higher than at its last
  improvement in `improvement_share` of the models (the paper: 5, 70 %). `patience` updates after the last improvement
  (the code: 25) it has stopped improving, and goes back to how it was then.
- The estimate is the return of the policy's most probable actions from the same start states in all models.
- The first collection acts uniformly at random, as everywhere here; later ones with the policy. The code's noise on the
  policy's parameters and its larger standard deviation while collecting are left out.
- Models are fitted as MBPO's (`models.fit`): each has a bootstrap sample, and held out are frames, not trajectories;
  they begin with its initialisation, and go on from their last weights, which the code draws anew every five
  collections.
- The reward is known, as the paper has it, or a further output of the ensemble.
- Rollouts begin in states that episodes of the environment began with, or by option in any. What happens after
  `horizon` steps does not count. A sample that terminates leaves the rollout; the code's tasks do not terminate.
- The baseline is linear (`networks.LinearBaseline`), and fitted after the advantages have been computed with its last
  fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.trpo import TrustRegionPolicy
from lit_mbrl.models import EnsembleConfig
from lit_mbrl.networks.linear_baseline import LinearBaseline
from lit_mbrl.returns import discounted_sums, generalized_advantages
from lit_mbrl.training.model_fit import FitsModels, ModelFitter
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    HalfOpenUnitInterval,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
    Sizes,
)


@dataclass
class Sweep:
    """Tracks the policy's optimisation between two collections.

    Attributes:
        updates: of the policy so far.
        improved_at: updates after which it last improved.
        stopped: whether it has stopped improving.
        performance: return `[K]` in each model of the policy that last improved.
        policy: its parameters.
        starts: the observations `[n, O]` that it is estimated from.
    """

    updates: int = 0
    improved_at: int = 0
    stopped: bool = True
    performance: Tensor | None = None
    policy: dict[str, Tensor] = field(default_factory=dict)
    starts: Tensor | None = None


@options
class METRPO(FitsModels, TrustRegionPolicy):
    """A Gaussian policy that steps on imagined rollouts as long as most models say that it improves."""

    paper = "Kurutach et al. 2018, arXiv 1802.10592"
    fixed_on_resume = (*TrustRegionPolicy.fixed_on_resume, "reward")

    hidden_sizes: Sizes = (32, 32)
    """Hidden layers, tanh, of the policy."""
    horizon: PositiveInt = 100
    """Steps of an imagined rollout, `H`."""
    rollouts: PositiveInt = 500
    """Rollouts imagined side by side for an update, `N`."""
    start_states: Literal["initial", "replay"] = "initial"
    """Start states of rollouts: `"initial"`, states that episodes of the environment began with, or any of the
    `"replay"`, for episodes that are much longer than the horizon."""
    reward: Literal["known", "learned", "auto"] = "auto"
    """`"known"` (`envs/tasks/rewards.py`), `"learned"` by the ensemble, or `"auto"`: known where it is."""
    gamma: ClosedUnitInterval = 1.0
    """Discount."""
    lmbda: ClosedUnitInterval = 1.0
    """Lambda of the generalised advantages."""
    validation_freq: PositiveInt = 5
    """Updates between two estimates of the performance."""
    improvement_share: ClosedUnitInterval = 0.7
    """Share of the models in which the policy has to improve."""
    patience: PositiveInt = 25
    """Updates without improvement after which the policy waits for the next collection."""
    validation_rollouts: PositiveInt = 50
    """Start states of an estimate."""
    reset_std: bool = True
    """Begin after each collection with the standard deviation of the start."""
    world_model: EnsembleConfig | None = None
    """The ensemble; null: five deterministic networks of 1024 x 1024."""
    model_batch_size: PositiveInt = 1_000
    """Frames per member and gradient step of a fit."""
    holdout_ratio: OpenUnitInterval = 1 / 3
    """Share of the real data that a fit holds out."""
    model_improvement: HalfOpenUnitInterval = 0.0
    """An epoch of a fit is better if it lowers a member's hold-out error by more than this share."""
    model_patience: NonNegativeInt = 25
    """Epochs without a better one for any member, after which a fit ends."""
    model_max_epochs: PositiveInt | None = 2_000
    """Epochs of a fit at most; null: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.world_model_factory = take(self, "world_model") or default_ensemble()
        self.sweep = Sweep()
        self.fitter = ModelFitter(
            self,
            batch_size=self.model_batch_size,
            holdout_ratio=self.holdout_ratio,
            max_holdout=2**62,
            improvement=self.model_improvement,
            patience=self.model_patience,
            max_epochs=self.model_max_epochs,
        )

    def check(self, spec: Any) -> None:
        super().check(spec)
        limit = spec.max_episode_steps
        steps = f"at most {limit}, the steps of an episode of {spec.name}"
        require(limit is None or self.horizon <= limit, "model.horizon", self.horizon, steps)
        known = f"learned or auto: envs/tasks/rewards.py knows no reward of {spec.name} as it is configured"
        require(self.reward != "known" or spec.reward is not None, "model.reward", "known", known)

    def check_data(self, data: Any) -> None:
        steps = f"an integer > 0: the policy updates after a collection at the most, with {type(self).__name__}"
        option = "data.train_steps_per_collection"
        require(data.train_steps_per_collection is not None, option, data.train_steps_per_collection, steps)
        frames = "at least 2: a frame to fit the models to, and one to hold out"
        for name in ("learning_starts", "capacity"):
            require(getattr(data, name) >= 2, f"data.{name}", getattr(data, name), frames)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one, whose models would each be fitted to other data and drift apart."""
        require(count == 1, "trainer.devices", count, f"1 with {type(self).__name__}")

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.baseline = LinearBaseline(spec.observation_dim)
        self.world_model = self.world_model_factory.build(spec.observation_dim, spec.action_dim, spec.terminated)
        self._known_reward = None if self.reward == "learned" else spec.reward

    def reward_of(self, observation: Tensor, action: Tensor, following: Tensor, predicted: Tensor) -> Tensor:
        """The reward `[..., 1]` of transitions, by the task's known function or as predicted."""
        return predicted if self._known_reward is None else self._known_reward(observation, action, following)

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.mode(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.actor.sample(observation).clamp(-1.0, 1.0)

    # ------------------------------------------------------------------ algorithm 2
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Trains all models with all samples; then the policy's optimisation begins."""
        super().after_collect(data, frames)
        if data.env_steps >= data.learning_starts:
            self.fit_models(data.replay)
            self.begin_sweep(data.replay)

    def sample(self, data: Any) -> dict[str, TensorDictBase | None]:
        """Imagines samples with the policy, unless its performance has stopped improving."""
        if self.sweep.stopped:
            return {"rollout": None}
        return {"rollout": self.imagine(self.draw_starts(data.replay, self.rollouts))}

    def training_step(self, batch: dict[str, TensorDictBase | None], batch_idx: int) -> None:
        """One step of TRPO on them; then, if it is time to, the performance in each of the models."""
        super().training_step(batch, batch_idx)
        if batch["rollout"] is not None:
            self.sweep.updates += 1
            last = self.trainer.datamodule.collects_next
            if last or self.sweep.updates % self.validation_freq == 0:
                self.validate_policy(last)

    # ------------------------------------------------------------------ until the performance stops improving
    @torch.no_grad()
    def begin_sweep(self, replay: Any) -> None:
        """Notes how the policy performs in the new models."""
        if self.reset_std:
            self.actor.log_std.fill_(self.init_log_std)
        starts = self.draw_starts(replay, self.validation_rollouts)
        self.sweep = Sweep(stopped=False, performance=self.performance(starts), policy=self._policy(), starts=starts)

    @torch.no_grad()
    def validate_policy(self, last: bool) -> None:
        """Keeps a policy that improves in enough models; goes back to the last such one if there has been none lately.

        Args:
            last: whether environment steps come next, so that the policy has to be one that has improved.
        """
        sweep, performance = self.sweep, self.performance(self.sweep.starts)
        share = (performance > sweep.performance).float().mean().item()
        if share >= self.improvement_share:
            sweep.performance, sweep.policy, sweep.improved_at = performance, self._policy(), sweep.updates
        elif last or sweep.updates - sweep.improved_at >= self.patience:
            self.actor.load_state_dict(sweep.policy)
            sweep.stopped = True
        improved = {"policy/improved_share": share, "policy/imagined_return": float(sweep.performance.mean())}
        self.note(improved | {"policy/updates": float(sweep.updates), "policy/improved_at": float(sweep.improved_at)})

    def _policy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.actor.state_dict().items()}

    @torch.no_grad()
    def performance(self, starts: Tensor) -> Tensor:
        """Return `[K]` of `horizon` steps of the policy's most probable actions in each model, mean over the starts.

        Args:
            starts: raw observations `[n, O]`.
        """
        dynamics, model = self.world_model.dynamics, self.world_model
        observation = starts.expand(len(dynamics.elites), *starts.shape)  # [K, n, O]
        alive, returns = torch.ones_like(observation[..., :1]), torch.zeros_like(observation[..., :1])
        for step in range(self.horizon):
            action = self.actor.mode(self.normalize(observation))
            predicted, _ = dynamics(observation, action, dynamics.elites)
            following = observation + predicted[..., :-1]
            reward = self.reward_of(observation, action, following, predicted[..., -1:])
            returns += self.gamma**step * alive * reward
            if model.rule is not None:
                alive = alive * ~model.rule(observation, action, following)
            else:
                alive = alive * (1.0 - model.termination_model(observation, action).sigmoid())
            observation = following
        return returns.mean((1, 2))

    # ------------------------------------------------------------------ imagination
    def draw_starts(self, replay: Any, count: int) -> Tensor:
        """Draws raw states `[count, O]` as `start_states` says, with replacement."""
        if self.start_states == "replay":
            return replay.sample_transitions(count)["observation"].to(self.device)
        first = replay.first_observations()
        return first[torch.randint(len(first), (count,))].to(self.device)

    @torch.no_grad()
    def imagine(self, observation: Tensor) -> TensorDict:
        """Imagines rollouts of `horizon` steps from `[N, O]`, each step of each in a model drawn at random.

        Returns:
            All frames of all rollouts, `[n]` with n <= N H: `observation` (normalised), `action` (as drawn; the models
            got the nearest in [-1, 1]), and of the policy `acted`, `log_prob` and `advantage`.
        """
        state, alive = self.world_model.initial(observation), torch.ones_like(observation[:, :1], dtype=torch.bool)
        steps: dict[str, list[Tensor]] = {name: [] for name in ("observation", "action", "reward", "alive", "ended")}
        for _ in range(self.horizon):
            normalized = self.normalize(state)
            action = self.actor.sample(normalized)
            taken = action.clamp(-1.0, 1.0)
            following, predicted, logit = self.world_model.step(state, taken)
            reward, state = self.reward_of(state, taken, following, predicted), following
            ended = torch.rand_like(logit) < logit.sigmoid()
            found = {"observation": normalized, "action": action, "reward": reward, "alive": alive, "ended": ended}
            for name, value in found.items():
                steps[name].append(value)
            alive = alive & ~ended
        self._model_rollouts += int(torch.stack(steps["alive"]).sum())
        return self._with_advantages({name: torch.stack(values, 1) for name, values in steps.items()})

    def _with_advantages(self, rollout: dict[str, Tensor]) -> TensorDict:
        """Adds what the policy's update reads to rollouts `[N, H]`, and fits the baseline to their returns."""
        observation, reward, ended = rollout["observation"], rollout["reward"], rollout["ended"].clone()
        ended[:, -1] = True  # what comes after the horizon does not count
        step = torch.arange(self.horizon, device=reward.device).view(1, -1, 1).expand_as(reward)
        value = self.baseline(observation, step)
        following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
        advantage = generalized_advantages(reward, value, following, ended, ended, self.gamma, self.lmbda)
        returns, alive = discounted_sums(reward, ended, self.gamma), rollout["alive"].squeeze(-1)
        self.baseline.fit(observation[alive], step[alive], returns[alive])
        observation, action = observation[alive], rollout["action"][alive]
        log_prob, _ = self.actor.log_prob_entropy(observation, action)
        frames = {"observation": observation, "action": action, "log_prob": log_prob, "advantage": advantage[alive]}
        frames["acted"] = self.actor.distribution(observation)
        self.note({"policy/entropy": float(self.actor.entropy(observation[:1])), "rollout/frames": float(len(action))})
        return TensorDict(frames, [len(action)])

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself, whose observations have been normalised while they were imagined."""
        return batch

    # ------------------------------------------------------------------ the models
    def fit_models(self, replay: Any) -> None:
        """Fits every objective of the ensemble to all real data."""
        frames, epochs = replay.frames().to(self.device), 0
        for objective in self.world_model_factory.objectives(self.world_model):

            def report_epoch(epoch: int, errors: Tensor, name: str = objective.name) -> None:
                self.notify_progress(
                    f"fitting the models' {name}: epoch {epoch}, hold-out error {float(errors.mean()):.3g}"
                )

            result = self.fitter.fit(objective, self.world_model, frames, on_epoch=report_epoch)
            epochs += result.epochs
            self.note({f"model/holdout_{objective.name}": float(result.errors.mean())})
        self.note({"model/epochs": float(epochs)})
        self.finite.flush()

    # ------------------------------------------------------------------ checkpoint
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the running sweep."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["sweep"] = asdict(self.sweep)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.sweep = Sweep(**checkpoint["sweep"])


def default_ensemble() -> EnsembleConfig:
    """Makes the paper's ensemble: deterministic networks that all predict, without weight decay."""
    return EnsembleConfig(
        num_members=5,
        num_elites=5,
        hidden_sizes=(1024, 1024),
        activation="relu",
        probabilistic=False,
        scale_targets=True,
        weight_decay=(0.0, 0.0, 0.0),
        propagation="mean",
    )
