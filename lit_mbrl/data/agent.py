"""The algorithm as its data module sees it; it knows nothing else of it.

    before_collect -> environment steps -> after_collect -> sample -> updates

The paper's Algorithm box is in these methods: MBPO fits its model in `before_collect` and rolls it out in
`after_collect`, PPO computes advantages there, and both say in `sample` what a training step learns from.
`training.algorithm.Algorithm` has all of them, so that a paper overrides what is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Literal, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor

Batch = dict[str, TensorDictBase]
Experience = Literal["transitions", "sequences", "rollouts"]

# Which data module serves which kind of experience.
SERVED_BY: dict[Experience, str] = {
    "transitions": "lit_mbrl.data.OffPolicy",
    "sequences": "lit_mbrl.data.SequenceReplay",
    "rollouts": "lit_mbrl.data.OnPolicy",
}


class SequenceBatchSizes(Protocol):
    """Sequences that a training step reads: their length, and batches of them."""

    @property
    def sequence_length(self) -> int: ...

    @property
    def sequence_batches(self) -> int: ...

    @property
    def option(self) -> str: ...


class StageSizes(Protocol):
    """A stage of a run: `training.stages.Stage`."""

    @property
    def name(self) -> str: ...

    @property
    def train_steps(self) -> int: ...

    @property
    def env_steps(self) -> int: ...

    @property
    def utd_ratio(self) -> Fraction | None: ...

    @property
    def epoch_steps(self) -> int | None: ...


class Faults(Protocol):
    """Checks for numbers that are not finite: `training.nonfinite.NonFiniteGuard`."""

    action: str

    def count_frames(self, frames: int) -> None:
        """Counts steps of the environment that were left out."""


class Agent(Protocol):
    """An algorithm as data modules see it.

    Attributes:
        learns_from: kind of experience, and so of data module.
        takes_relabelled: whether it learns from single transitions alone, whose goals may be relabelled.
        also_evaluated: names of further policies that are evaluated beside the one of `eval_policy`.
        device: of its networks.
        finite: what is done about steps that are not finite, those of the environment included.
    """

    learns_from: ClassVar[Experience]
    also_evaluated: ClassVar[tuple[str, ...]]
    takes_relabelled: ClassVar[bool]
    device: torch.device
    finite: Faults

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` if the data module's options do not suit the algorithm."""

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` if the algorithm cannot be trained on so many devices."""

    def add_buffers(self, data: Any) -> None:
        """Asks the data module (`add_buffer`) for what is kept besides the experience, with its sizes."""

    def stages(self, data: Any) -> Sequence[StageSizes]:
        """Returns the stages of a run; none if it has but one."""

    def start_stage(self, data: Any, name: str) -> None:
        """Is called when a stage begins."""

    def before_collect(self, data: Any) -> None:
        """Is called before environment steps are taken."""

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Takes fresh frames `[num_envs, T]`, which the replay, if there is one, has already."""

    def sample(self, data: Any) -> Batch:
        """Returns this rank's share of a training step's batches."""

    def sampling(self) -> SequenceBatchSizes:
        """Returns which sequences a training step needs."""

    def normalize(self, observation: Tensor) -> Tensor:
        """Returns observations as `explore` and `eval_policy` get them."""

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """Returns actions to collect with."""

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the policy of an evaluation."""

    def further_policy(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the policy of `also_evaluated` with that name."""

    def restart_episodes(self, envs: Iterable[int]) -> None:
        """Is called where new episodes begin out of turn in these environments."""

    def lose_track(self) -> None:
        """Forgets the running episodes, since one has begun without `is_init` for `explore`."""
