"""MEMR: one-step rollouts from real states that make the imagined data as diverse as can be.

Zhang et al. 2020, "Maximum Entropy Model Rollouts: Fast Model Based Policy Optimization without Compounding Errors"
(arXiv 2006.04802), algorithm 1. Start states are drawn with `P(i) ~ p_i^alpha` (eq. 3), where a priority `p` (eq. 4) is
high where the policy that the imagined data follow, `psi`, gives the action little density: adding it raises the
entropy of the data most (theorem 3.1). Importance weights (eq. 5) in the critic's loss correct the bias.
Lines 8-16 are in `fill`. The rows of a rollout are a segment of the model buffer: they were drawn from one distribution
of start states, and a batch comes out of one of them.

Readings and departures (`variant="reference"` gives the author's code's choice):

- Eq. 4 is for one action dimension; we sum it over them (`losses.entropy_priority`). It is never negative.
- The paper's `psi` is a Gaussian of the action that was taken; the code's of the action before the tanh, and it clips
  priorities to [1e-4, 50]. Ours are at least 1e-6, so that no state is lost for good.
- Algorithm 1 divides the weights by their maximum; the code by their mean. Both within a segment.
- A state that is drawn more than once in a rollout keeps the priority of its last action.
- The paper prints neither exponents nor the number D of epochs of `psi`: alpha 0.6, beta from 0.4 to 1 over the run are
  the code's.
- Line 20's KL divergence is SAC's policy loss, unweighted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.mbpo import MBPO, RealRatio
from lit_mbrl.losses import (
    behaviour_loss,
    entropy_priority,
    importance_weight,
    normalized_by_max,
    normalized_by_mean,
    raw_action,
    sampling_mass,
    weighted,
)
from lit_mbrl.networks import DiagonalGaussian
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt, Rule, Sizes

Exponents = Annotated[tuple[float, float], Rule("two numbers >= 0, as [0.4,1]", lambda pair: min(pair) >= 0)]
_LEAST = 1e-6
_CODE_BOUNDS = (1e-4, 50.0)


@options
class MEMR(MBPO):
    """MBPO with one-step rollouts from prioritised states.

    `rollout_schedule` has to be one step throughout, and `retain_epochs` plays no part: `segments` says what is kept.
    """

    paper = "Zhang et al. 2020, arXiv 2006.04802"
    # Segments of another size do not fit into the ring.
    fixed_on_resume = (*MBPO.fixed_on_resume, "rollout_batch_size", "segments")

    rollout_freq: PositiveInt = 1
    """Environment steps between two rollouts, each of which fills a segment."""
    rollout_batch_size: PositiveInt = 400
    """Rows `M` of a segment."""
    segments: PositiveInt = 1_000
    """Segments that the model buffer keeps."""
    real_ratio: RealRatio = 0.0
    """See `MBPO`; algorithm 1 learns from imagined data only."""
    variant: Literal["paper", "reference"] = "paper"
    """`"paper"` or `"reference"`, see the head of `memr.py`."""
    priority_exponent: NonNegativeFloat = 0.6
    """Alpha of eq. 3; 0 draws uniformly."""
    weight_exponent: Exponents = (0.4, 1.0)
    """Beta of eq. 5 at the start and at the end of the run, on a straight line in between."""
    behaviour_hidden_sizes: Sizes | None = None
    """Hidden layers of `psi`; null: `hidden_sizes`."""
    behaviour_lr: PositiveFloat = 3e-4
    """Adam's learning rate of `psi`."""
    behaviour_epochs: PositiveInt = 1
    """Passes `D` over the rows of a rollout, of which `psi` learns."""
    behaviour_batch_size: PositiveInt = 256
    """Rows per gradient step of `psi`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = "one step throughout, as [0,0,1,1]: a longer rollout would leave the states that priorities are of"
        require(self.rollout_schedule[2:] == (1, 1), "model.rollout_schedule", self.rollout_schedule, one)
        if self.behaviour_hidden_sizes is None:
            self.behaviour_hidden_sizes = self.hidden_sizes

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.behaviour = DiagonalGaussian(spec.observation_dim, spec.action_dim, self.behaviour_hidden_sizes)

    # ------------------------------------------------------------------ algorithm 1
    def add_buffers(self, data: Any) -> None:
        capacity, option = self.segments * self.rollout_batch_size, "model.rollout_batch_size"
        data.add_buffer("model", capacity, option, segment_size=self.rollout_batch_size)
        data.add_priorities("priorities")

    def fill(self, data: Any, length: int) -> int:
        """Lines 8-16: fills the next segment from states drawn by priority; returns its transitions."""
        priorities = data.buffers["priorities"]
        self.rank_new_frames(data)  # line 8
        slots, probability = priorities.draw(self.rollout_batch_size, len(data.replay))  # line 10
        weight = self.importance(probability.to(self.device), len(data.replay))  # line 11
        starts = data.replay.buffer[slots]["observation"].to(self.device)
        (frames,) = self.rollout(starts, length)  # line 12
        frames["weight"] = weight.unsqueeze(-1)
        data.buffers["model"].extend(frames)  # line 14
        self.note(self.fit_behaviour(frames["observation"], frames["action"]))  # line 15
        priorities.set(slots, self.priority_mass(frames["observation"], frames["action"]))  # line 16
        return len(frames)

    def rank_new_frames(self, data: Any) -> None:
        """Gives the frames that came since the last rollout their priority, at the action that was taken there.

        Nothing that a priority depends on has changed in between, so it is the one they would have got on arrival.
        """
        priorities = data.buffers["priorities"]
        slots = priorities.new_slots()
        new = data.replay.buffer[slots]
        mass = self.priority_mass(new["observation"].to(self.device), new["action"].to(self.device))
        priorities.set(slots, mass)

    def mix_batches(self, real: TensorDictBase, imagined: TensorDictBase) -> TensorDict:
        """See `MBPO.mix_batches`; real rows were drawn uniformly, so their weight is 1."""
        rows, weight = super().mix_batches(real, imagined), imagined["weight"]
        rows["weight"] = torch.cat([weight.new_ones(len(real), 1), weight])
        return rows

    # ------------------------------------------------------------------ priorities and weights
    def to_pre_tanh(self, action: Tensor) -> Tensor:
        """The action `[..., A]` of which `psi` is a density."""
        return raw_action(action) if self.variant == "reference" else action

    @torch.no_grad()
    def priority(self, observation: Tensor, action: Tensor) -> Tensor:
        """Eq. 4 at raw observations `[N, O]` and actions `[N, A]`: `[N]`, positive."""
        mean, log_std = self.behaviour(self.normalize(observation))
        priority = entropy_priority(self.to_pre_tanh(action), mean, log_std).squeeze(-1)
        if self.variant == "reference":
            return (priority / action.shape[-1]).clamp(*_CODE_BOUNDS)
        return priority.clamp(min=_LEAST)

    def priority_mass(self, observation: Tensor, action: Tensor) -> Tensor:
        """The numerator of eq. 3, `[N]`."""
        return sampling_mass(self.priority(observation, action), self.priority_exponent)

    @property
    def beta(self) -> float:
        """The exponent of eq. 5 at this environment step."""
        start, end = self.weight_exponent
        return start + (end - start) * min(1.0, self.env_steps / self.trainer.datamodule.total_frames)

    def importance(self, probability: Tensor, count: int) -> Tensor:
        """Normalised weights `[M]` of a segment whose states were drawn with these probabilities out of `count`."""
        weight = importance_weight(probability, count, self.beta)
        return normalized_by_mean(weight) if self.variant == "reference" else normalized_by_max(weight)

    def fit_behaviour(self, observation: Tensor, action: Tensor) -> dict[str, float]:
        """Moves `psi` towards the newest imagined data, by maximum likelihood (line 15); returns metrics.

        Args:
            observation: raw, `[M, O]`.
            action: `[M, A]`.
        """
        observation, action = self.normalize(observation), self.to_pre_tanh(action)
        optimizer = self.fitter.optimizer(
            "behaviour", [{"params": list(self.behaviour.parameters())}], self.behaviour_lr
        )
        gradient_step = self.fitter.step("behaviour", optimizer, self.behaviour)
        frames = TensorDict({"observation": observation, "action": action}, [len(observation)])
        losses: list[Tensor] = []

        def loss_of(rows: TensorDictBase) -> Tensor:
            return behaviour_loss(rows["action"], *self.behaviour(rows["observation"])).mean()

        for _ in range(self.behaviour_epochs):
            order = torch.randperm(len(observation)).to(observation.device)
            for rows in order.split(self.behaviour_batch_size):
                losses.append(gradient_step(loss_of, frames[rows], len(rows) == self.behaviour_batch_size))
        self.finite.flush()
        return {"rollout/behaviour_loss": float(torch.stack(losses).mean()), "rollout/weight_exponent": self.beta}

    # ------------------------------------------------------------------ losses
    def prepare_batch(self, batch: TensorDictBase) -> TensorDict:
        """As SAC's, with the rows' weights; frames without any (evaluation) have none."""
        prepared = super().prepare_batch(batch)
        if "weight" in batch.keys():  # noqa: SIM118
            prepared["weight"] = batch["weight"]
        return prepared

    def apply_importance_weights(self, loss: Tensor, batch: TensorDictBase) -> Tensor:
        """Line 19: each row counts with its weight."""
        return weighted(loss, batch["weight"])
