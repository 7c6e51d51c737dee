"""Schedules: when training steps are due, where epochs end, and when an algorithm's other work is due."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from lit_mbrl.data.agent import StageSizes


class UpdateSchedule:
    """Counts environment steps and training steps of a run, and keeps the exact ratio between them.

    After `n` environment steps `pretrain_steps + floor(utd_ratio * (n - learning_starts))` training steps have been
    due, none before `learning_starts`. An epoch ends with the last training step that is due at a multiple of
    `epoch_frames`, or at `total_frames`.

    Attributes:
        env_steps: environment steps so far, warm-up included, of all devices together.
        train_steps: training steps so far.
        stage: the running one of several; None: there is but one.
        epoch_frames: environment steps between evaluations.

    Args:
        total_frames: environment steps of the whole run.
        epoch_frames: environment steps between evaluations.
        learning_starts: environment steps before the first training step.
        utd_ratio: training steps per environment step from there on.
        pretrain_steps: training steps right after the warm-up.
    """

    def __init__(
        self,
        total_frames: int,
        epoch_frames: int,
        learning_starts: int,
        utd_ratio: Fraction,
        pretrain_steps: int = 0,
    ) -> None:
        self.env_steps = 0
        self.train_steps = 0
        self.stage: StageSizes | None = None
        self._total_frames, self.epoch_frames, self._utd_ratio = total_frames, epoch_frames, utd_ratio
        # (environment step, training steps due there, and per step from there on): one per ratio that a resume has set.
        self._ratios = [(learning_starts, pretrain_steps, utd_ratio)]
        if pretrain_steps:
            self._ratios.insert(0, (0, 0, Fraction(0)))

    def begin_stage(self, at_frame: bool) -> StageSizes | None:
        """Returns the stage that begins with the coming frame or the running training step; None: none does."""
        return None

    def ended_stage(self) -> str | None:
        """Returns the stage that has just ended, with its last training step; None: none has, or there is but one."""
        return None

    def train_steps_due(self, env_steps: int) -> int:
        """Training steps that are due after so many environment steps."""
        start, train_steps, ratio = next(
            (line for line in reversed(self._ratios) if line[0] <= env_steps), self._ratios[0]
        )
        return train_steps + ratio.numerator * max(0, env_steps - start) // ratio.denominator

    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self._epochs_until(self.train_steps_due(self._total_frames))

    def epochs_done(self) -> int:
        """Epochs that have ended."""
        return self._epochs_until(self.train_steps)

    def epoch_end(self) -> int:
        """Training steps at which the running epoch ends; those so far if none is left."""
        return next((end for end in self._epoch_ends() if end > self.train_steps), self.train_steps)

    def _epochs_until(self, train_steps: int) -> int:
        return sum(1 for end in self._epoch_ends() if end <= train_steps)

    def _epoch_ends(self) -> Iterator[int]:
        """Training step counts at which epochs end, an epoch without a training step being part of the next one."""
        last = 0
        for boundary in range(self.epoch_frames, self._total_frames + self.epoch_frames, self.epoch_frames):
            end = self.train_steps_due(min(boundary, self._total_frames))
            if end > last:
                yield end
                last = end

    def state_dict(self) -> dict[str, Any]:
        """Counters, and the ratios so far."""
        return {
            "env_steps": self.env_steps,
            "train_steps": self.train_steps,
            "ratios": [[start, train_steps, str(ratio)] for start, train_steps, ratio in self._ratios],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, with the configured ratio from there on."""
        self.env_steps, self.train_steps = state["env_steps"], state["train_steps"]
        if "ratios" in state:
            self._ratios = [(start, train_steps, Fraction(ratio)) for start, train_steps, ratio in state["ratios"]]
        if self._ratios[-1][2] != self._utd_ratio:  # another one from here on; what has been done stays done
            self._ratios.append((self.env_steps, self.train_steps_due(self.env_steps), self._utd_ratio))


class RolloutSchedule(UpdateSchedule):
    """Schedules by rollouts: so many training steps are due at the end of each, and epochs end with rollouts.

    Args:
        total_frames: environment steps of the whole run.
        epoch_frames: environment steps between evaluations.
        frames: environment steps of a rollout.
        train_steps: training steps that follow on it.
    """

    def __init__(self, total_frames: int, epoch_frames: int, frames: int, train_steps: int) -> None:
        super().__init__(total_frames, epoch_frames, 0, Fraction(1))
        self.set_rollout(frames, train_steps)

    def set_rollout(self, frames: int, train_steps: int) -> None:
        """Sets environment steps and training steps of a rollout."""
        self.frames_per_rollout, self.train_steps_per_rollout = frames, train_steps

    def train_steps_due(self, env_steps: int) -> int:
        """Training steps that are due after so many environment steps."""
        return env_steps // self.frames_per_rollout * self.train_steps_per_rollout

    def position(self) -> int:
        """Training steps on the running rollout before the running one."""
        return (self.train_steps - 1) % self.train_steps_per_rollout

    def within_rollout(self) -> bool:
        """Returns whether there are training steps to come on the rollout that has been collected last."""
        return self.train_steps % self.train_steps_per_rollout != 0

    def state_dict(self) -> dict[str, Any]:
        """Counters."""
        return {"env_steps": self.env_steps, "train_steps": self.train_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.env_steps, self.train_steps = state["env_steps"], state["train_steps"]


class Schedule:
    """Schedules an algorithm's work between training steps, by names that the algorithm gives.

    Attributes:
        clock: environment steps from the end of the warm-up to the start of the running collection; None during the
            warm-up.
    """

    def __init__(self) -> None:
        self.clock: int | None = None
        self._last: dict[str, int] = {}

    def due(self, name: str, every: int) -> bool:
        """Returns whether work is due, and notes it as done: at first after the warm-up, then every so many steps.

        Steps are collected several at a time; work is due once if a multiple of `every` has been passed since.
        """
        clock, last = self.clock, self._last.get(name)
        if clock is None or (last is not None and clock // every <= last // every):
            return False
        self._last[name] = clock
        return True

    def state_dict(self) -> dict[str, Any]:
        """The clock when each work was last done."""
        return {"last": dict(self._last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._last = dict(state["last"])
