"""Dyna-style data: the replay trains a model, the model fills a buffer of its own, and batches are mixed from both.

    environment -> collector -> replay -----------------------> real rows ----+
                                   |                                          +--> one batch per round
                                   +--> fit the model -> roll it out          |
                                                            -> model buffer --+

The order of an environment step is MBPO's (Janner et al. 2019, arXiv 1906.08253v3, algorithm 2): the model is fitted to
all real data if it is time to, a step is taken, the model is rolled out if it is time to, and then come the updates.
The data module decides when and keeps what comes of it; fitting and rolling out are the algorithm's
(`fit_model`, `rollout`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.data.buffers.disk import COPIES
from lit_mbrl.data.buffers.imagined import ModelBuffer, bytes_per_row
from lit_mbrl.data.buffers.transitions import predicted_bytes, require_room
from lit_mbrl.data.off_policy import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils.errors import require

# What a loss reads of a frame, real or imagined.
_READ = ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated"))


class Dyna(OffPolicy):
    """Off-policy data whose batches are mostly imagined.

    Epochs here are `model_epoch` environment steps after the warm-up: the papers' unit, and not how often the policy is
    evaluated.

    Args:
        env: see `OffPolicy`.
        model_train_freq: environment steps between two fits of the model; the first is at the end of the warm-up.
        rollout_freq: environment steps between two rollouts; None: `model_train_freq`.
        rollout_batch_size: start states per rollout.
        rollout_schedule: `[e0, e1, k0, k1]`: rollouts have k0 steps up to epoch e0 and k1 from epoch e1 on, and in
            between the integer part of the straight line.
        model_epoch: environment steps of an epoch.
        retain_epochs: the model buffer keeps the transitions of so many epochs, if no rollout ended early.
        real_ratio: share of a batch that is real: `int(real_ratio * batch_size)` transitions of each batch.
        **kwargs: of `OffPolicy`.
    """

    only_at_start: ClassVar[tuple[str, ...]] = OffPolicy.only_at_start

    def __init__(
        self,
        env: EnvConfig,
        model_train_freq: int = 250,
        rollout_freq: int | None = None,
        rollout_batch_size: int = 100_000,
        rollout_schedule: tuple[int, int, int, int] = (20, 150, 1, 1),
        model_epoch: int = 1_000,
        retain_epochs: int = 1,
        real_ratio: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(env, **kwargs)
        require(
            self.learning_starts >= 2,
            "data.learning_starts",
            self.learning_starts,
            "at least 2: a frame to fit the model to, and one to hold out",
        )
        frames = "at least 2: a frame to fit the model to, and one to hold out"
        require(self.capacity >= 2, "data.capacity", self.capacity, frames)
        require(model_train_freq > 0, "data.model_train_freq", model_train_freq, "an integer > 0")
        require(
            rollout_freq is None or rollout_freq > 0,
            "data.rollout_freq",
            rollout_freq,
            "an integer > 0, or null for data.model_train_freq",
        )
        require(rollout_batch_size > 0, "data.rollout_batch_size", rollout_batch_size, "an integer > 0")
        first, last, shortest, longest = rollout_schedule
        require(
            0 <= first <= last and shortest > 0 and longest > 0,
            "data.rollout_schedule",
            list(rollout_schedule),
            "[first epoch, last epoch, length until the first, length from the last], as [20,150,1,15]",
        )
        require(model_epoch > 0, "data.model_epoch", model_epoch, "an integer > 0")
        require(retain_epochs > 0, "data.retain_epochs", retain_epochs, "an integer > 0")
        require(
            math.isfinite(real_ratio) and 0.0 <= real_ratio < 1.0,
            "data.real_ratio",
            real_ratio,
            "a number >= 0 and < 1 (1, no imagined data, is what lit_mbrl.data.OffPolicy is for)",
        )
        self.model_train_freq, self.rollout_freq = model_train_freq, rollout_freq or model_train_freq
        self.rollout_batch_size, self.rollout_schedule = rollout_batch_size, tuple(rollout_schedule)
        self.model_epoch, self.retain_epochs = model_epoch, retain_epochs
        self.real_ratio = Fraction(str(real_ratio))
        self.model_buffer: ModelBuffer | None = None
        self._last_fit: int | None = None  # clock of the last fit and of the last rollout
        self._last_rollout: int | None = None
        self._metrics: dict[str, float] = {}  # of them, until they are logged
        self._model_state: Mapping[str, Any] | None = None

    # ------------------------------------------------------------------ schedules
    @property
    def longest_rollout(self) -> int:
        """Steps of the longest rollout that the schedule has."""
        return max(self.rollout_schedule[2:])

    @property
    def real_rows(self) -> int:
        """Real transitions in each batch."""
        return int(self.real_ratio * self.batch_size)

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

    def _epoch_of(self, clock: int) -> int:
        return clock // self.model_epoch

    # ------------------------------------------------------------------ set-up
    def check(self, directory: str = ".") -> None:
        """See `OffPolicy.check`; the model buffer has to fit into memory, too."""
        super().check(directory)
        require_room(self._model_bytes(), "memory", directory, "data.rollout_batch_size")
        real = predicted_bytes(self.capacity, self.spec.observation_dim, self.spec.action_dim)
        require_room(self._model_bytes() + (real if self.storage == "memory" else 0), "memory", directory)

    def check_algorithm(self, algorithm: Any) -> None:
        """Raises `UserError` unless the algorithm has a model to roll out."""
        require(
            hasattr(algorithm, "rollout"),
            "data",
            type(self).__name__,
            f"lit_mbrl.data.OffPolicy for {type(algorithm).__name__}, which imagines no data (MBPO and MEMR do)",
        )

    def share(self, world_size: int) -> None:
        """See `OffPolicy.share`.

        Raises:
            UserError: for more than one device, whose models would each be fitted to other data and drift apart.
        """
        require(world_size == 1, "trainer.devices", world_size, f"1 with {type(self).__name__}")
        super().share(world_size)

    def setup(self, stage: str) -> None:
        """See `OffPolicy.setup`."""
        super().setup(stage)
        if stage == "fit":
            size = self._model_bytes()
            rank_zero_info(f"model buffer: {self._largest():,} transitions, {size / 1e6:,.1f} MB at the most")

    def _largest(self) -> int:
        return self.model_capacity(self.longest_rollout)

    def _model_bytes(self) -> int:
        return self._largest() * bytes_per_row(self.spec.observation_dim, self.spec.action_dim)

    def disk_bytes(self, every_epochs: int | None, world_size: int) -> dict[str, int]:
        """See `OffPolicy.disk_bytes`; a checkpoint has the whole model buffer in it, too."""
        needed = super().disk_bytes(every_epochs, world_size)
        return needed if every_epochs is None else needed | {"the model's data": COPIES * self._model_bytes()}

    def make_buffer(self, device: torch.device) -> ModelBuffer:
        """An empty buffer of the size that the schedule begins with."""
        capacity = self.model_capacity(self.rollout_length(0))
        return ModelBuffer(capacity, self.spec.observation_dim, self.spec.action_dim, device)

    # ------------------------------------------------------------------ the model's turn
    def collect(self) -> None:
        """Fits the model if it is time to, takes environment steps, and rolls the model out if it is time to."""
        clock = self.env_steps - self.learning_starts
        if clock >= 0 and _due(clock, self._last_fit, self.model_train_freq):
            self.fit_model(clock)
        super().collect()
        if self.env_steps <= self.learning_starts:
            return
        clock = max(clock, 0)
        if self._last_fit is None:  # the warm-up has ended in the middle of these frames
            self.fit_model(clock)
        if _due(clock, self._last_rollout, self.rollout_freq):
            self.roll_out(clock)

    def fit_model(self, clock: int) -> None:
        """Has the algorithm fit its model to the whole replay.

        Args:
            clock: environment steps since the warm-up.
        """
        self._metrics |= self.trainer.lightning_module.fit_model(self.replay)
        self._last_fit = clock

    def roll_out(self, clock: int) -> None:
        """Has the algorithm imagine transitions from real states, and keeps them.

        Args:
            clock: environment steps since the warm-up.
        """
        length = self.rollout_length(self._epoch_of(clock))
        self.model_buffer.resize(self.model_capacity(length))
        self._metrics |= {"rollout/length": float(length), "rollout/transitions": float(self.imagine(length))}
        self._last_rollout = clock

    def imagine(self, length: int) -> int:
        """Rolls out from states drawn uniformly from the replay; returns how many transitions came of it."""
        starts = self.replay.sample_transitions(self.rollout_batch_size)["observation"]
        count = 0
        for frames in self.trainer.lightning_module.rollout(starts.to(self.trainer.lightning_module.device), length):
            self.model_buffer.extend(frames)
            count += len(frames)
        return count

    # ------------------------------------------------------------------ batches
    def sample(self) -> dict[str, TensorDictBase]:
        """`"transitions"` `[batch_size]`: `real_rows` from the replay, then those of the model buffer."""
        imagined = self.model_buffer.sample(self.batch_size - self.real_rows)
        if not self.real_rows:
            return {"transitions": imagined}
        real = self.replay.sample_transitions(self.real_rows)
        return {"transitions": self.mix(real, imagined)}

    def mix(self, real: TensorDictBase, imagined: TensorDictBase) -> TensorDict:
        """Real rows first."""
        rows = TensorDict({}, [len(real) + len(imagined)])
        for key in _READ:
            rows[key] = torch.cat([real[key].to(imagined[key].device), imagined[key]])
        return rows

    def pop_metrics(self) -> dict[str, float]:
        """See `OffPolicy.pop_metrics`; and what fits and rollouts since the last call have brought."""
        metrics, self._metrics = self._metrics, {}
        return super().pop_metrics() | metrics

    # ------------------------------------------------------------------ checkpoint
    def _start_collector(self) -> None:
        # Before the random states are restored, and after the algorithm has come to its device.
        self.model_buffer = self.make_buffer(self.trainer.lightning_module.device)
        if self._model_state is not None:
            self.load_model_state(self._model_state)
            self._model_state = None
        super()._start_collector()

    def _own_state(self) -> dict[str, Any]:
        state = super()._own_state()
        return state if self.collector is None else state | {"model": self.model_state()}

    def model_state(self) -> dict[str, Any]:
        """The model buffer, when the model has had its last turns, and what is still to be logged of them."""
        return {
            "buffer": self.model_buffer.state_dict(),
            "last_fit": self._last_fit,
            "last_rollout": self._last_rollout,
            "metrics": dict(self._metrics),
        }

    def load_model_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `model_state` returned."""
        self.model_buffer.load_state_dict(state["buffer"])
        self._last_fit, self._last_rollout = state["last_fit"], state["last_rollout"]
        self._metrics = dict(state["metrics"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `OffPolicy.load_state_dict`; the model buffer comes back when the collector is made."""
        super().load_state_dict(state)
        if self.replay is not None:
            self._model_state = state.get("model")


def _due(clock: int, last: int | None, every: int) -> bool:
    """Whether a multiple of `every` lies after `last` and not after `clock`."""
    return last is None or clock // every > last // every
