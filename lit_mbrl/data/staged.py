"""Schedules runs of several stages (`agent.StageSizes`): which one a step is of, and when training steps are due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lit_mbrl.data.agent import StageSizes
from lit_mbrl.data.schedule import RolloutSchedule, UpdateSchedule
from lit_mbrl.utils.errors import OptionError, require


@dataclass(frozen=True)
class _Part:
    """A stage's place in a run: environment steps and training steps at which it begins, and at which it ends."""

    stage: StageSizes
    ratio: Fraction
    env_start: int
    train_start: int
    unit: int = 1  # environment steps that are taken together

    @property
    def env_end(self) -> int:
        return self.env_start + self.stage.env_steps

    @property
    def train_end(self) -> int:
        return self.train_start + self.due(self.env_end)

    def due(self, env_steps: int) -> int:
        """Training steps of this stage that are due after so many environment steps of the run."""
        if env_steps < self.env_start:
            return 0
        since = min(env_steps, self.env_end) - self.env_start
        since -= since % self.unit
        return self.stage.train_steps + self.ratio.numerator * since // self.ratio.denominator


class StagedSchedule(UpdateSchedule):
    """Counts environment steps and training steps of a run of several stages.

    Args:
        stages: in their order.
        epoch_frames: environment steps between evaluations; there is one at the end of each stage, too.
        utd_ratio: training steps per environment step in stages that have no ratio of their own.
        unit: environment steps that are taken together, before the training steps that they make due.

    Raises:
        ValueError: if two stages have one name, or the last one has no training step.
    """

    def __init__(self, stages: Sequence[StageSizes], epoch_frames: int, utd_ratio: Fraction, unit: int = 1) -> None:
        self._parts: list[_Part] = []
        env_steps = train_steps = 0
        for stage in stages:
            ratio = utd_ratio if stage.utd_ratio is None else stage.utd_ratio
            self._parts.append(part := _Part(stage, ratio, env_steps, train_steps, unit))
            env_steps, train_steps = part.env_end, part.train_end
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages have different names, not {', '.join(names)}")
        if self._parts[-1].train_end == self._parts[-1].train_start:
            raise ValueError(f"the last stage, {names[-1]}, has no training step, so nothing would begin it")
        UpdateSchedule.__init__(self, env_steps, epoch_frames, 0, utd_ratio)  # with rollouts `super` is their schedule

    def train_steps_due(self, env_steps: int) -> int:
        """Training steps that are due after so many environment steps."""
        return sum(part.due(env_steps) for part in self._parts)

    def begin_stage(self, at_frame: bool) -> StageSizes | None:
        """See `UpdateSchedule.begin_stage`."""
        stage = self._of_frame() if at_frame else self._of_step()
        if self.stage is not None and self.stage.name == stage.name:
            return None
        self.stage = stage
        return stage

    def ended_stage(self) -> str | None:
        """See `UpdateSchedule.ended_stage`."""
        here = [part for part in self._parts if part.train_end == self.train_steps and self.env_steps >= part.env_end]
        return here[-1].stage.name if here else None

    def _of_step(self) -> StageSizes:
        return next(part.stage for part in self._parts if self.train_steps <= part.train_end)

    def _of_frame(self) -> StageSizes:
        taking = [part for part in self._parts if part.stage.env_steps]
        return next((part.stage for part in taking if self.env_steps < part.env_end), taking[-1].stage)

    def _epoch_ends(self) -> Iterator[int]:
        ends: set[int] = set()
        for part in self._parts:
            first = part.train_start + part.stage.train_steps
            ends.update(range(part.train_start, first, part.stage.epoch_steps or max(part.stage.train_steps, 1)))
            every = self.epoch_frames
            boundaries = range(-(-part.env_start // every) * every, part.env_end, every)
            ends.update(part.train_start + part.due(boundary) for boundary in boundaries)
            ends.update((first, part.train_end))
        return iter(sorted(ends - {0}))

    def state_dict(self) -> dict[str, Any]:
        """Counters, and the stages: those that a resumed run has behind it have to be the same."""
        running = None if self.stage is None else self.stage.name
        return {
            "env_steps": self.env_steps,
            "train_steps": self.train_steps,
            "stages": self._described(),
            "stage": running,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there.

        Raises:
            OptionError: if the stages so far were others.
        """
        names, saved = [part.stage.name for part in self._parts], state.get("stages")
        # Those that have not begun yet may have other sizes now.
        begun = names.index(state["stage"]) + 1 if state.get("stage") in names else len(names)
        if saved is None or saved[:begun] != self._described()[:begun]:
            raise OptionError("ckpt_path", saved, f"a run of the stages {self._described()}, as configured")
        self.env_steps, self.train_steps = state["env_steps"], state["train_steps"]
        self.stage = next((part.stage for part in self._parts if part.stage.name == state["stage"]), None)

    def _described(self) -> list[str]:
        stages = [(part.stage, part.ratio) for part in self._parts]
        return [f"{each.name} ({each.train_steps} + {each.env_steps} x {ratio})" for each, ratio in stages]


class StagedRolloutSchedule(StagedSchedule, RolloutSchedule):
    """Counts environment steps and training steps of stages whose environment steps are rollouts.

    Each rollout is followed by so many training steps; those at a stage's start come before its first one.

    Args:
        stages: in their order, each of whole rollouts.
        schedule: of a run with rollouts of that kind that has no stages.
    """

    def __init__(self, stages: Sequence[StageSizes], schedule: RolloutSchedule) -> None:
        frames, train_steps = schedule.frames_per_rollout, schedule.train_steps_per_rollout
        StagedSchedule.__init__(self, stages, schedule.epoch_frames, Fraction(train_steps, frames), frames)
        RolloutSchedule.set_rollout(self, frames, train_steps)

    def set_rollout(self, frames: int, train_steps: int) -> None:
        """See `RolloutSchedule.set_rollout`.

        Raises:
            OptionError: if rollouts have become larger, by further devices.
        """
        count = frames // self.frames_per_rollout
        require(count == 1, "trainer.devices", count, "1 for a run of several stages on rollouts")

    def position(self) -> int:
        """Training steps on the running rollout before the running one."""
        return (self.train_steps - 1 - self._rollouts_from()) % self.train_steps_per_rollout

    def within_rollout(self) -> bool:
        """Returns whether there are training steps to come on the rollout that has been collected last."""
        since = self.train_steps - self._rollouts_from()
        return since > 0 and since % self.train_steps_per_rollout != 0

    def _rollouts_from(self) -> int:
        """Training steps before those on the rollouts of the running stage."""
        part = next(part for part in self._parts if self.train_steps <= part.train_end)
        return part.train_start + part.stage.train_steps


def schedule_of(data: Any, stages: Sequence[StageSizes]) -> UpdateSchedule:
    """Returns a data module's schedule, or that of several stages, if the algorithm has any.

    Raises:
        OptionError: if the stages do not take `data.total_frames` environment steps, or not whole rollouts.
    """
    if not stages:
        return data.update_schedule
    taken = sum(stage.env_steps for stage in stages)
    names = ", ".join(stage.name for stage in stages)
    expected = f"{taken}, the environment steps of its stages together ({names})"
    require(data.total_frames == taken, "data.total_frames", data.total_frames, expected)
    if data.serves != "rollouts":
        return StagedSchedule(stages, data.epoch_frames, data.utd_ratio)
    for stage in stages:
        whole = f"{data.frames_per_batch} times a whole number, as each stage of whole rollouts has, {stage.name} too"
        require(stage.env_steps % data.frames_per_batch == 0, "data.total_frames", stage.env_steps, whole)
    return StagedRolloutSchedule(stages, data.update_schedule)
