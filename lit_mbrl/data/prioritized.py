"""MEMR's data: start states drawn by priority, and imagined transitions in segments with importance weights.

Zhang et al. 2020, "Maximum Entropy Model Rollouts" (arXiv 2006.04802), algorithm 1, lines 8-16 and 18. What a priority
is, how weights are normalised, and the policy that both are measured by, are the algorithm's (`priority_mass`,
`importance`, `fit_behaviour`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from lit_mbrl.data.buffers.imagined import SegmentedBuffer, bytes_per_row
from lit_mbrl.data.dyna import Dyna
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils.errors import require


class Priorities:
    """`p^alpha` of every frame in a replay, and draws in proportion to it (eq. 3) by TorchRL's sum tree.

    TorchRL's sampler is given `p^alpha` itself with an exponent of 1. So what is saved is what the tree is made of, and
    a restored tree has the same bits.

    Attributes:
        known: number of the first frame that has no priority yet.

    Args:
        capacity: slots of the replay.
    """

    def __init__(self, capacity: int) -> None:
        self.known = 0
        self._mass = torch.zeros(capacity)
        self._sampler = PrioritizedSampler(capacity, alpha=1.0, beta=0.0, eps=0.0)

    def set(self, slots: Tensor, mass: Tensor) -> None:
        """Writes `p^alpha`, `[n]`, of the frames in slots `[n]`; of a slot named more than once the last counts."""
        if not len(slots):
            return
        slots, where = slots.unique(return_inverse=True)
        last = torch.zeros_like(slots).scatter_reduce_(0, where, torch.arange(len(where)), "amax")
        self._mass[slots] = mass.cpu()[last]
        self._sampler.update_priority(slots, self._mass[slots])

    def draw(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Slots `[count]` among the first `size`, and the probability of each, `[count]` (eq. 3)."""
        slots, _ = self._sampler.sample(_Slots(size), count)
        return slots, self._mass[slots] / self._mass[:size].sum()

    def of(self, slots: Tensor) -> Tensor:
        """`p^alpha` of the frames in slots `[n]`, `[n]`; 0 where there is none yet."""
        return self._mass[slots]


class _Slots:
    """All that TorchRL's sampler asks a storage for."""

    ndim, device = 1, torch.device("cpu")

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class PrioritizedDyna(Dyna):
    """Dyna with one-step rollouts from prioritised states.

    Args:
        env: see `OffPolicy`.
        rollout_freq: environment steps between two rollouts, each of which fills a segment.
        rollout_batch_size: rows `M` of a segment.
        segments: segments that the model buffer keeps.
        real_ratio: see `Dyna`; algorithm 1 learns from imagined data only.
        **kwargs: of `Dyna`, and through it of `OffPolicy`. `rollout_schedule` has to be one step throughout, and
            `retain_epochs` plays no part: `segments` says what is kept.
    """

    # Segments of another size do not fit into the ring.
    only_at_start: ClassVar[tuple[str, ...]] = (*Dyna.only_at_start, "rollout_batch_size", "segments")

    def __init__(
        self,
        env: EnvConfig,
        rollout_freq: int = 1,
        rollout_batch_size: int = 400,
        segments: int = 1_000,
        real_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            env, rollout_freq=rollout_freq, rollout_batch_size=rollout_batch_size, real_ratio=real_ratio, **kwargs
        )
        require(segments > 0, "data.segments", segments, "an integer > 0")
        require(
            self.rollout_schedule[2:] == (1, 1),
            "data.rollout_schedule",
            list(self.rollout_schedule),
            "one step throughout, as [0,0,1,1]: a longer rollout would leave the states that priorities are of",
        )
        self.segments = segments
        self.priorities: Priorities | None = None

    def check_algorithm(self, algorithm: Any) -> None:
        """Raises `UserError` unless the algorithm gives states a priority."""
        require(
            hasattr(algorithm, "priority_mass"),
            "data",
            type(self).__name__,
            f"lit_mbrl.data.{'Dyna' if hasattr(algorithm, 'rollout') else 'OffPolicy'} for "
            f"{type(algorithm).__name__}, which gives states no priority (MEMR does)",
        )

    def model_capacity(self, length: int) -> int:
        """Transitions in all segments."""
        return self.segments * self.rollout_batch_size

    def _model_bytes(self) -> int:
        return self._largest() * bytes_per_row(self.spec.observation_dim, self.spec.action_dim, weighted=True)

    def make_buffer(self, device: torch.device) -> SegmentedBuffer:
        """No segment yet."""
        observation_dim, action_dim = self.spec.observation_dim, self.spec.action_dim
        return SegmentedBuffer(self.segments, self.rollout_batch_size, observation_dim, action_dim, device)

    def setup(self, stage: str) -> None:
        """See `OffPolicy.setup`."""
        super().setup(stage)
        if stage == "fit":
            self.priorities = Priorities(self.replay.capacity)

    # ------------------------------------------------------------------ algorithm 1, lines 8 to 16
    def imagine(self, length: int) -> int:
        """Fills the next segment from states drawn by priority; returns how many transitions that is."""
        algorithm = self.trainer.lightning_module
        self.rank_new_frames()  # line 8
        slots, probability = self.priorities.draw(self.rollout_batch_size, len(self.replay))  # line 10
        weight = algorithm.importance(probability.to(algorithm.device), len(self.replay))  # line 11
        starts = self.replay.buffer[slots]["observation"].to(algorithm.device)
        (frames,) = algorithm.rollout(starts, length)  # line 12
        frames["weight"] = weight.unsqueeze(-1)
        self.model_buffer.extend(frames)  # line 14
        self._metrics |= algorithm.fit_behaviour(frames["observation"], frames["action"])  # line 15
        self.priorities.set(slots, algorithm.priority_mass(frames["observation"], frames["action"]))  # line 16
        return len(frames)

    def rank_new_frames(self) -> None:
        """Gives the frames that came since the last rollout their priority, at the action that was taken there.

        Nothing that a priority depends on has changed in between, so it is the one they would have got on arrival.
        """
        algorithm, replay = self.trainer.lightning_module, self.replay
        slots = self.slots_since(max(self.priorities.known, replay.written - len(replay)))
        new = replay.buffer[slots]
        mass = algorithm.priority_mass(new["observation"].to(algorithm.device), new["action"].to(algorithm.device))
        self.priorities.set(slots, mass)
        self.priorities.known = replay.written

    def slots_since(self, first: int) -> Tensor:
        """Slots of the frames from number `first` on, in the order of their numbers."""
        numbers = torch.arange(first, self.replay.written)
        return (self.replay.cursor - self.replay.written + numbers) % self.replay.capacity

    def mix(self, real: TensorDictBase, imagined: TensorDictBase) -> TensorDict:
        """Real rows first; they were drawn uniformly, so their weight is 1."""
        rows = super().mix(real, imagined)
        weight = imagined["weight"]
        rows["weight"] = torch.cat([weight.new_ones(len(real), 1), weight])
        return rows

    # ------------------------------------------------------------------ checkpoint
    def model_state(self) -> dict[str, Any]:
        """See `Dyna.model_state`; and the priorities of the frames in the replay, the oldest first."""
        mass = self.priorities.of(self.slots_since(self.replay.written - len(self.replay)))
        return super().model_state() | {"priorities": {"mass": mass, "known": self.priorities.known}}

    def load_model_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `model_state` returned, into a replay that has its frames again."""
        super().load_model_state(state)
        priorities = state["priorities"]
        slots = self.slots_since(self.replay.written - len(self.replay))
        mass = priorities["mass"][len(priorities["mass"]) - len(slots) :]  # a smaller replay has the newest frames
        self.priorities.set(slots[mass > 0], mass[mass > 0])
        self.priorities.known = priorities["known"]
