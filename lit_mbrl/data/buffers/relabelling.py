"""Hindsight experience replay: transitions with a goal that their episode has achieved in the place of its own.

Andrychowicz et al. 2017, "Hindsight Experience Replay" (arXiv 1707.01495), section 4 and algorithm 1. Goals are drawn
when a batch is: the replay keeps what happened, and of `goals + 1` transitions `goals` on average are relabelled.

    frames of an episode   t0  t1  t2  t3  t4          a transition at t2 may get what was achieved
    future                          *   *   *          after t2 (its own step) or later
    final                                   *          after the last
    episode                 *   *   *   *   *          after any

Readings and departures:

- A running episode counts up to its newest frame; the paper stores episodes when they are over.
- Of an episode that the ring has partly written over, goals come from what is there.
- Whether a relabelled transition terminates, the environment's `compute_terminated` says; without one, as it was.
- What the environment's `compute_reward` reads in `info` is not kept: it gets an empty one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import Sampler

from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.envs import EnvConfig, Spec
from lit_mbrl.envs.make import make_configured
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt


@options(frozen=True, eq=True, repr=True)
class Hindsight:
    """Relabelled goals, as a configuration says them."""

    section: ClassVar[str] = "data.hindsight"

    strategy: Literal["future", "final", "episode"] = "future"
    """Which goals: achieved later in the episode, at its end, or anywhere in it."""
    goals: PositiveInt = 4
    """Relabelled transitions for each that keeps its goal, on average: the paper's k."""


class GoalRule:
    """The rewards and terminations of an environment with goals, for any goal.

    Args:
        config: the environment.
        spec: of the environment.

    Raises:
        OptionError: if it has no goals, or cannot say what another would pay.
    """

    def __init__(self, config: EnvConfig, spec: Spec) -> None:
        _check_config(config, spec)
        self.achieved, self.desired = spec.parts["achieved_goal"], spec.parts["desired_goal"]
        env = make_configured(config)
        try:
            self._task: Any = env.unwrapped
        finally:
            env.close()
        if not hasattr(self._task, "compute_reward"):
            raise OptionError("data.env.name", config.name, "an environment with compute_reward for data.hindsight")
        two = torch.zeros(2, self.achieved.stop - self.achieved.start)
        shape = tuple(np.shape(self._task.compute_reward(two.numpy(), two.numpy(), {})))
        several = f"an environment whose compute_reward takes several goals at once (of 2 it returned {list(shape)})"
        require(shape == (2,), "data.env.name", config.name, several)

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Rewards `[B, 1]` of achieved and desired goals `[B, G]`."""
        reward = self._task.compute_reward(achieved.numpy(), desired.numpy(), {})
        return torch.from_numpy(np.asarray(reward, np.float32)).unsqueeze(-1)

    def terminated(self, achieved: Tensor, desired: Tensor, before: Tensor) -> Tensor:
        """Whether episodes end there, `[B, 1]`; `before` where the environment does not say."""
        if not hasattr(self._task, "compute_terminated"):
            return before
        ends = self._task.compute_terminated(achieved.numpy(), desired.numpy(), {})
        return torch.from_numpy(np.broadcast_to(np.asarray(ends, np.bool_), len(achieved)).copy()).unsqueeze(-1)


def _check_config(config: EnvConfig, spec: Spec) -> None:
    widths = {part: spec.parts[part].stop - spec.parts[part].start for part in spec.parts if part.endswith("_goal")}
    goals = {"achieved_goal", "desired_goal"}
    if set(widths) != goals or len(set(widths.values())) != 1:
        parts = ", ".join(spec.parts) or "one array"
        expected = f"an environment that observes achieved_goal and desired_goal, for data.hindsight (it has {parts})"
        raise OptionError("data.env.name", spec.name, expected)
    for option, given, plain in (
        ("action_repeat", config.action_repeat, 1),
        ("transforms", config.transforms, []),
        ("other_tasks", config.other_tasks, {}),
    ):
        own = f"{plain} with data.hindsight, whose rewards are of single steps of one environment"
        require(given == plain, f"data.env.{option}", given, own)


class HindsightReplay(Replay):
    """A replay whose transitions come with their own goals and with goals that were achieved.

    Args:
        hindsight: which goals.
        rule: what they pay.
        **replay: arguments of `Replay`.
    """

    def __init__(
        self,
        hindsight: Hindsight,
        rule: GoalRule,
        capacity: int,
        num_envs: int = 1,
        storage: Literal["memory", "memmap"] = "memory",
        directory: str | Path = ".",
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(capacity, num_envs, storage, directory, sampler)
        self.hindsight, self.rule = hindsight, rule
        # Numbers of the first and the last frame of each slot's episode; -1 while it is running.
        self._first = np.full(self.capacity, -1, np.int64)
        self._last = np.full(self.capacity, -1, np.int64)
        self._began = np.arange(num_envs)  # number of the first frame of each environment's running episode

    def extend(self, frames: TensorDictBase) -> None:
        """See `Replay.extend`."""
        before = self.written
        super().extend(frames)
        numbers = np.arange(max(before, self.oldest), self.written)
        slots = self.slots(numbers)
        self._first[slots] = self._last[slots] = -1
        for number in numbers[self._ends[slots]]:
            self._close(int(number))

    def _close(self, last: int) -> None:
        """Notes that an episode ended with the frame of that number."""
        env = last % self.num_envs
        first = int(self._began[env])
        oldest = self.oldest + (env - self.oldest) % self.num_envs
        slots = self.slots(np.arange(max(first, oldest), last + 1, self.num_envs))
        self._first[slots], self._last[slots] = first, last
        self._began[env] = last + self.num_envs

    def episodes(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers, `[n]` each, of the first and last frame that is there of the episodes of those in slots `[n]`."""
        env = (self.numbers(slots) % self.num_envs).numpy()
        first, last = self._first[slots.numpy()], self._last[slots.numpy()]
        running = last < 0
        newest = self.written - self.num_envs + (env - self.written) % self.num_envs
        oldest = self.oldest + (env - self.oldest) % self.num_envs
        first = np.maximum(np.where(running, self._began[env], first), oldest)
        return torch.from_numpy(first), torch.from_numpy(np.where(running, newest, last))

    def sample_transitions(self, count: int) -> TensorDictBase:
        """Transitions `[count]` as the sampler draws them, a share of them relabelled."""
        slots = self.sample_slots(count)
        rows = self._storage.get(slots)
        share = self.hindsight.goals / (self.hindsight.goals + 1)
        chosen = torch.rand(count) < share
        self.relabel(rows, slots, chosen)
        return rows

    def relabel(self, rows: TensorDictBase, slots: Tensor, chosen: Tensor) -> None:
        """Gives transitions `[n]`, copies of the frames in slots `[n]`, other goals where `chosen` `[n]`, in place."""
        goal = self._storage.get(self.slots(self.draw_goals(slots)))["next", "observation"][:, self.rule.achieved]
        following = rows["next"]
        achieved, desired = following["observation"][:, self.rule.achieved], self.rule.desired
        goal = torch.where(chosen.unsqueeze(-1), goal, rows["observation"][:, desired])
        rows["observation"][:, desired] = goal
        following["observation"][:, desired] = goal
        where = chosen.unsqueeze(-1)
        ends = self.rule.terminated(achieved, goal, following["terminated"])
        following["reward"] = torch.where(where, self.rule.reward(achieved, goal), following["reward"])
        following["terminated"] = torch.where(where, ends, following["terminated"])

    def draw_goals(self, slots: Tensor) -> Tensor:
        """Numbers `[n]` of the frames whose achieved goals those in slots `[n]` get."""
        first, last = self.episodes(slots)
        if self.hindsight.strategy == "final":
            return last
        start = self.numbers(slots) if self.hindsight.strategy == "future" else first
        frames = (last - start) // self.num_envs + 1
        # In double precision, which rounds no draw up to the frame after the last.
        return start + (torch.rand(len(slots), dtype=torch.float64) * frames).long() * self.num_envs

    # ------------------------------------------------------------------ checkpoint
    def _mark(self, slot: int) -> None:
        super()._mark(slot)
        self._close(int(self.numbers(torch.tensor(slot))))

    def _restored(self) -> None:
        super()._restored()
        self._first[:] = self._last[:] = -1
        numbers = np.arange(self.oldest, self.written)
        self._began = self.oldest + (np.arange(self.num_envs) - self.oldest) % self.num_envs
        for number in numbers[self._ends[self.slots(numbers)]]:
            self._close(int(number))
