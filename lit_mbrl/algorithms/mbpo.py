"""MBPO: soft actor-critic on short rollouts of a learned model that branch off from real states.

Janner et al. 2019, "When to Trust Your Model: Model-Based Policy Optimization" (arXiv 1906.08253v3), algorithm 2. The
policy is optimised by SAC, unchanged; what differs is the data. Algorithm 2 is in `before_collect`, `after_collect` and
`sample`:

    environment -> replay -----------------------> real rows ----+
                      |                                          +--> one batch per training step
                      +--> fit the model -> roll it out          |
                                               -> model buffer --+

Readings and departures (the paper leaves the model's training to its code, `models.fit` and `models.EnsembleConfig`):

- A rollout starts at real states drawn uniformly, follows the stochastic policy, and takes every step in an elite of
  the ensemble that is drawn anew for each sample. A sample whose episode terminates leaves the rollout.
- Where the termination is learned and no known rule, it is drawn with the predicted probability.
- The model sees raw observations, whether or not `normalize_observations` gives the policy others.
- The code fits and rolls out before it takes the environment step; algorithm 2, and we, roll out after it.
- A model of sequences (`models.RecurrentConfig`) is fitted to all of them that lie in the one part of the real data,
  and held out are all in the other: blocks of consecutive frames, drawn anew for each fit.
- SAC's critic loss is twice the code's, which has a factor 1/2: Adam does not see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.models import EnsembleConfig, ModelLoss, WorldModelFactory
from lit_mbrl.training.model_fit import FitsModels, ModelFitter
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import HalfOpenUnitInterval, NonNegativeInt, OpenUnitInterval, PositiveInt, Rule

RolloutLengths = Annotated[
    tuple[int, int, int, int],
    Rule(
        "[first epoch, last epoch, length until the first, length from the last], as [20,150,1,15]",
        lambda s: 0 <= s[0] <= s[1] and s[2] > 0 and s[3] > 0,
    ),
]
RealRatio = Annotated[float, Rule("a number >= 0 and < 1 (1, no imagined data, is SAC)", lambda ratio: 0 <= ratio < 1)]
# What a loss reads of a frame, real or imagined.
_READ = ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated"))


@options
class MBPO(FitsModels, SAC):
    """SAC that learns from a model's data.

    Epochs here are `model_epoch` environment steps after the warm-up: the papers' unit, and not how often the policy is
    evaluated.
    """

    paper = "Janner et al. 2019, arXiv 1906.08253"

    model_train_freq: PositiveInt = 250
    """Environment steps between two fits of the model; the first is at the end of the warm-up."""
    rollout_freq: PositiveInt | None = None
    """Environment steps between two rollouts; null: `model_train_freq`."""
    rollout_batch_size: PositiveInt = 100_000
    """Start states per rollout."""
    rollout_schedule: RolloutLengths = (20, 150, 1, 1)
    """`[e0, e1, k0, k1]`: rollouts have k0 steps up to epoch e0 and k1 from epoch e1 on, and in between the integer
    part of the straight line."""
    model_epoch: PositiveInt = 1_000
    """Environment steps of an epoch."""
    retain_epochs: PositiveInt = 1
    """The model buffer keeps the transitions of so many epochs, if no rollout ended early."""
    real_ratio: RealRatio = 0.05
    """Share of a batch that is real: `int(real_ratio * data.batch_size)` transitions of each batch."""
    world_model: WorldModelFactory | None = None
    """The model, `lit_mbrl.models.EnsembleConfig` (null: MBPO's) or `lit_mbrl.models.RecurrentConfig`."""
    model_batch_size: PositiveInt = 256
    """Frames per member and gradient step of a fit."""
    holdout_ratio: OpenUnitInterval = 0.2
    """Share of the real data that a fit holds out."""
    max_holdout: PositiveInt = 5_000
    """Frames held out at most (at least a sequence and two frames, if the model learns from sequences)."""
    model_improvement: HalfOpenUnitInterval = 0.01
    """An epoch of a fit is better if it lowers a member's hold-out error by more than this share."""
    model_patience: NonNegativeInt = 5
    """Epochs without a better one for any member, after which a fit ends."""
    model_max_epochs: PositiveInt | None = None
    """Epochs of a fit at most; null: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rollout_freq = self.rollout_freq or self.model_train_freq
        self.real_ratio = Fraction(str(self.real_ratio))
        self.world_model_factory = take(self, "world_model") or EnsembleConfig()
        self.fitter = ModelFitter(
            self,
            batch_size=self.model_batch_size,
            holdout_ratio=self.holdout_ratio,
            max_holdout=self.max_holdout,
            improvement=self.model_improvement,
            patience=self.model_patience,
            max_epochs=self.model_max_epochs,
        )

    def check_data(self, data: Any) -> None:
        frames = "at least 2: a frame to fit the model to, and one to hold out"
        for option in ("learning_starts", "capacity"):
            require(getattr(data, option) >= 2, f"data.{option}", getattr(data, option), frames)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one, whose models would each be fitted to other data and drift apart."""
        require(count == 1, "trainer.devices", count, f"1 with {type(self).__name__}")

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.world_model = self.world_model_factory.build(spec.observation_dim, spec.action_dim, spec.terminated)

    # ------------------------------------------------------------------ algorithm 2
    def add_buffers(self, data: Any) -> None:
        length = self.rollout_length(0)
        most = self.model_capacity(self.longest_rollout)
        data.add_buffer("model", self.model_capacity(length), "model.rollout_batch_size", most)

    def before_collect(self, data: Any) -> None:
        """Before actions are taken in the environment: the model is trained on all real data, if it is time to."""
        self.fit_if_due(data)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """After that: the model is rolled out from real states, if it is time to."""
        super().after_collect(data, frames)
        self.fit_if_due(data)  # which it is, if the warm-up has ended in the middle of these frames
        if data.schedule.due("rollout", every=self.rollout_freq):
            length = self.rollout_length(data.schedule.clock // self.model_epoch)
            self.note({"rollout/length": float(length), "rollout/transitions": float(self.fill(data, length))})

    def fit_if_due(self, data: Any) -> None:
        """Fits the model at the end of the warm-up and every `model_train_freq` environment steps."""
        if data.schedule.due("fit", every=self.model_train_freq):
            self.note(self.fit_model(data.replay))

    def fill(self, data: Any, length: int) -> int:
        """Fills the model buffer from states drawn uniformly from the replay; returns with how many transitions."""
        buffer, count = data.buffers["model"], 0
        buffer.resize(self.model_capacity(length))
        starts = data.replay.sample_transitions(self.rollout_batch_size)["observation"]
        for step in self.rollout(starts.to(self.device), length):
            buffer.extend(step)
            count += len(step)
        return count

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """For each update of the policy: a batch of SAC, real rows first, then those of the model buffer."""
        num_real = self.real_rows(data.batch_size)
        imagined = data.buffers["model"].sample(data.batch_size - num_real)
        if not num_real:
            return {"transitions": imagined}
        return {"transitions": self.mix_batches(data.replay.sample_transitions(num_real), imagined)}

    def real_rows(self, batch_size: int) -> int:
        """Real transitions in each batch."""
        return int(self.real_ratio * batch_size)

    def mix_batches(self, real: TensorDictBase, imagined: TensorDictBase) -> TensorDict:
        """One batch of both, real rows first."""
        rows = TensorDict({}, [len(real) + len(imagined)])
        for key in _READ:
            rows[key] = torch.cat([real[key].to(imagined[key].device), imagined[key]])
        return rows

    # ------------------------------------------------------------------ the schedule of rollouts
    @property
    def longest_rollout(self) -> int:
        """Steps of the longest rollout that the schedule has."""
        return max(self.rollout_schedule[2:])

    def rollout_length(self, epoch: int) -> int:
        """Steps `k` of the rollouts of an epoch."""
        first, last, start, end = self.rollout_schedule
        if epoch <= first:
            return start
        if epoch >= last:
            return end
        return int(start + Fraction(epoch - first, last - first) * (end - start))

    def model_capacity(self, length: int) -> int:
        """Transitions that `retain_epochs` bring with rollouts of `length` steps; at least those of one rollout."""
        rollouts = Fraction(self.rollout_batch_size * self.model_epoch, self.rollout_freq)
        return max(int(self.retain_epochs * length * rollouts), length * self.rollout_batch_size)

    # ------------------------------------------------------------------ the model's data
    @torch.no_grad()
    def rollout(self, observation: Tensor, length: int) -> Iterator[TensorDict]:
        """Rolls the stochastic policy out in the model, on the device of `observation`.

        Args:
            observation: raw start states `[N, O]`.
            length: steps `k`.

        Yields:
            The transitions of each step, `[n]` with n <= N, keys as in `data.buffers.imagined`: those of the samples
            that had not terminated before it.
        """
        state = self.world_model.initial(observation)
        for _ in range(length):
            observation = self.world_model.observation(state)
            action, _ = self.sample_policy(self.normalize(observation))
            state, reward, logit = self.world_model.step(state, action)
            terminated = torch.rand_like(logit) < logit.sigmoid()
            following = {
                "observation": self.world_model.observation(state),
                "reward": reward,
                "terminated": terminated,
            }
            self._model_rollouts += len(observation)
            yield TensorDict({"observation": observation, "action": action, "next": following}, [len(observation)])
            alive = ~terminated.squeeze(-1)
            if not alive.any():
                return
            state = _rows(state, alive)

    # ------------------------------------------------------------------ the model's training
    def fit_model(self, replay: Any) -> dict[str, float]:
        """Fits every objective of the model to all real data; returns metrics.

        Args:
            replay: a `data.Replay`.
        """
        metrics = {"model/epochs": 0.0}
        for objective in self.world_model_factory.objectives(self.world_model):
            frames, holdout = self.model_frames(objective, replay)

            def report_epoch(epoch: int, errors: Tensor, name: str = objective.name) -> None:
                self.notify_progress(
                    f"fitting the model's {name}: epoch {epoch}, hold-out error {float(errors.mean()):.3g}"
                )

            result = self.fitter.fit(objective, self.world_model, frames, holdout, on_epoch=report_epoch)
            metrics["model/epochs"] += result.epochs
            metrics[f"model/holdout_{objective.name}"] = float(result.errors.mean())
            if objective.members > 1:
                metrics["model/holdout_elites"] = float(result.errors[self.world_model.dynamics.elites.cpu()].mean())
        self.finite.flush()
        return metrics

    def model_frames(self, objective: ModelLoss, replay: Any) -> tuple[TensorDictBase, TensorDictBase | None]:
        """Returns what a fit learns from, and what it holds out if that is not any share of the first.

        All real transitions `[N]`; for an objective on sequences those of two separate parts, `[n, T]` each, T its
        length.
        """
        if objective.batch == "transitions" or objective.length == 1:
            return replay.frames().to(self.device), None
        length = objective.length or self.longest_rollout
        share = self.fitter.options["holdout_ratio"], self.fitter.options["max_holdout"]
        training, holdout = replay.split_sequences(length, *share)
        return training.to(self.device), holdout.to(self.device)


def _rows(state: Any, chosen: Tensor) -> Any:
    """Rows of a model's state: a tensor, or a (named) tuple of states."""
    if isinstance(state, Tensor):
        return state[chosen]
    parts = (_rows(part, chosen) for part in state)
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
