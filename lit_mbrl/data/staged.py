"""Schedules runs of several stages (`agent.StageSizes`): which one a step is of, and when training steps are due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lit_mbrl.data.agent import StageSizes
from lit_mbrl.data.schedule import UpdateSchedule
from lit_mbrl.utils.errors import OptionError, require


@dataclass(frozen=True)
class _Part:
    """A stage's place in a run: environment steps and training steps at which it begins, and at which it ends."""

    stage: StageSizes
    ratio: Fraction
    env_start: int
    train_start: int

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
        return self.stage.train_steps + self.ratio.numerator * since // self.ratio.denominator


class StagedSchedule(UpdateSchedule):
    """Counts environment steps and training steps of a run of several stages.

    Args:
        stages: in their order.
        epoch_frames: environment steps between evaluations; there is one at the end of each stage, too.
        utd_ratio: training steps per environment step in stages that have no ratio of their own.

    Raises:
        ValueError: if two stages have one name, or the last one has no training step.
    """

    def __init__(self, stages: Sequence[StageSizes], epoch_frames: int, utd_ratio: Fraction) -> None:
        self._parts: list[_Part] = []
        env_steps = train_steps = 0
        for stage in stages:
            ratio = utd_ratio if stage.utd_ratio is None else stage.utd_ratio
            self._parts.append(part := _Part(stage, ratio, env_steps, train_steps))
            env_steps, train_steps = part.env_end, part.train_end
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages have different names, not {', '.join(names)}")
        if self._parts[-1].train_end == self._parts[-1].train_start:
            raise ValueError(f"the last stage, {names[-1]}, has no training step, so nothing would begin it")
        super().__init__(env_steps, epoch_frames, 0, utd_ratio)

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
            every = self._epoch_frames
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


def schedule_of(data: Any, stages: Sequence[StageSizes]) -> UpdateSchedule:
    """Returns a data module's schedule, or that of several stages, if the algorithm has any.

    Raises:
        OptionError: if the stages do not take `data.total_frames` environment steps, or the data are rollouts, whose
            training steps follow on each.
    """
    if not stages:
        return data.update_schedule
    if data.serves == "rollouts":
        expected = "lit_mbrl.data.OffPolicy or lit_mbrl.data.SequenceReplay, as for all runs of several stages"
        raise OptionError("data", type(data).__name__, expected)
    taken = sum(stage.env_steps for stage in stages)
    names = ", ".join(stage.name for stage in stages)
    expected = f"{taken}, the environment steps of its stages together ({names})"
    require(data.total_frames == taken, "data.total_frames", data.total_frames, expected)
    return StagedSchedule(stages, data.epoch_frames, data.utd_ratio)
