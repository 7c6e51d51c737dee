"""Returns and lengths of the training episodes, across batches of frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from tensordict import TensorDictBase

from lit_mbrl.utils import distributed


class EpisodeStatistics:
    """Sums rewards per environment and keeps the episodes that ended since it was last asked.

    Args:
        num_envs: environments side by side.
    """

    def __init__(self, num_envs: int) -> None:
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, np.int64)
        self.ended: list[tuple[float, int]] = []
        self.monitored = [0.0, 0, 0]  # sums of returns and lengths, and number, of those since the last evaluation
        self._last: dict[str, float] = {}
        self._seen: tuple[TensorDictBase | None, tuple[np.ndarray, ...]] = (None, ())

    def add(self, frames: TensorDictBase) -> None:
        """Takes frames `[num_envs, T]`."""
        if self._seen[0] is not frames or not frames.is_locked:  # a collector fills the same tensors again and again
            following = frames.get("next")
            keys = ("reward", "terminated", "truncated")
            self._seen = (frames, tuple(following.get(key).numpy()[..., 0] for key in keys))
        rewards, terminated, truncated = self._seen[1]
        ends = terminated | truncated
        some_end = ends.any()
        for t in range(rewards.shape[1]):
            self.returns += rewards[:, t]
            self.lengths += 1
            if some_end:
                for i in ends[:, t].nonzero()[0].tolist():
                    episode = (float(self.returns[i]), int(self.lengths[i]))
                    self.ended.append(episode)
                    self.monitored = [total + value for total, value in zip(self.monitored, (*episode, 1), strict=True)]
                    self.returns[i] = 0.0
                    self.lengths[i] = 0

    def pop(self) -> dict[str, float]:
        """Mean return and length of the episodes of all ranks that ended since the last call; empty if none did."""
        ended, self.ended = self.ended, []
        returns, lengths = zip(*ended, strict=True) if ended else ((), ())
        return _means([sum(returns), sum(lengths), len(ended)])

    def pop_monitored(self) -> dict[str, float]:
        """The same of the episodes that ended since its own last call; its last result again if none did."""
        sums, self.monitored = self.monitored, [0.0, 0, 0]
        self._last = _means(sums) or self._last
        return self._last

    def state_dict(self) -> dict:
        returns, lengths = torch.tensor(self.returns), torch.tensor(self.lengths)
        ended = [list(pair) for pair in self.ended]
        kept = {"ended": ended, "monitored": list(self.monitored), "last": dict(self._last)}
        return {"returns": returns, "lengths": lengths} | kept

    def load_state_dict(self, state: dict) -> None:
        self.returns, self.lengths = (state[key].numpy().copy() for key in ("returns", "lengths"))
        self.ended = [(pair[0], pair[1]) for pair in state["ended"]]
        self.monitored, self._last = list(state.get("monitored", [0.0, 0, 0])), dict(state.get("last", {}))

    def restart(self, envs: Iterable[int] | None = None) -> None:
        """Forgets the running episodes, those of some environments or all, where new ones start out of turn."""
        for env in range(len(self.returns)) if envs is None else envs:
            self.returns[env] = 0.0
            self.lengths[env] = 0


def _means(own: list[float]) -> dict[str, float]:
    """Mean return and length over all ranks, from this one's sums of both and its number; empty if there are none."""
    returns, lengths, number = (sum(parts) for parts in zip(*distributed.gather(own), strict=True))
    return {"train/return": returns / number, "train/episode_length": lengths / number} if number else {}
