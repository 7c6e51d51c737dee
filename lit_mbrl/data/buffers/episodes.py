"""Replay of whole episodes for models that are trained on sequences: every observation is stored once.

Index t of an episode holds observation t and what led to it, as Dreamer keeps it (Hafner et al., arXiv 1912.01603):

    observation   o0      o1      o2   ...   oT         oT may be terminal
    action        0       a0      a1         aT-1       a0 was taken at o0
    reward        0       r1      r2         rT         came with o1
    is_first      1       0       0          0

so an episode of T steps has T + 1 frames. Frames lie in a ring in the order of their arrival, and each environment's
episodes remember the numbers of theirs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.buffers.memmap_array import MemmapArray
from lit_mbrl.data.buffers.ring import Ring
from lit_mbrl.envs import Spec
from lit_mbrl.utils.errors import OptionError

EpisodeChoice = Literal["episodes", "windows"]
ShortEpisodes = Literal["skip", "pad"]
_PIECE_BYTES = 64 * 2**20


class EpisodeReplay(Ring):
    """A ring of frames, read as sequences that never cross the end of an episode.

    | key | shape | dtype |
    |---|---|---|
    | `"observation"` | `[C, H, W]` or `[O]` | uint8 or float32 |
    | `"action"` | `[A]` | float32, the one that led here; one-hot if actions are discrete; 0 in the first frame |
    | `"reward"` | `[1]` | float32, came with the observation; 0 in the first frame |
    | `"terminated"` | `[1]` | bool, the task ended with this observation |
    | `"truncated"` | `[1]` | bool, a time limit made it the last |
    | `"is_first"` | `[1]` | bool, begins its episode |

    Args:
        spec: of the environments.
        capacity: frames kept, the first of each episode included.
        num_envs: environments that are collected from.
        storage: where observations are: `"memory"`, or `"memmap"` for a file in `directory`.
        directory: its folder.
    """

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        num_envs: int = 1,
        storage: Literal["memory", "memmap"] = "memory",
        directory: str | Path = ".",
    ) -> None:
        super().__init__(capacity)
        self.num_envs, self.spec = num_envs, spec
        dtype = np.dtype(np.uint8 if spec.pixels else np.float32)
        path = None if storage == "memory" else Path(directory) / "observations.memmap"
        self._observations = MemmapArray(capacity, spec.observation_shape, dtype, path)
        self._small: dict[str, np.ndarray] = {
            "action": np.zeros((capacity, spec.action_dim), np.float32),
            "reward": np.zeros((capacity, 1), np.float32),
            "terminated": np.zeros((capacity, 1), np.bool_),
            "truncated": np.zeros((capacity, 1), np.bool_),
            "is_first": np.zeros((capacity, 1), np.bool_),
            "env": np.zeros((capacity, 1), np.int32),
        }
        self.piece = max(1, _PIECE_BYTES // frame_bytes(spec))  # frames of a file of a checkpoint
        self._episodes: list[array] = []  # the numbers of each episode's frames
        self._running: list[array | None] = [None] * num_envs
        self._live: tuple[list[array], np.ndarray] | None = None

    # ------------------------------------------------------------------ writing
    def extend(self, frames: TensorDictBase) -> None:
        """Appends steps `[num_envs, T]` with the keys of `Replay`, and the first observation of new episodes."""
        following = frames["next"]
        for env in range(self.num_envs):
            row = {key: following[key][env].numpy() for key in ("observation", "reward", "terminated", "truncated")}
            self._append(env, frames["observation"][env].numpy(), frames["action"][env].numpy(), row)

    def _append(self, env: int, observation: np.ndarray, action: np.ndarray, row: dict[str, np.ndarray]) -> None:
        """Appends T steps of one environment: observations before them, actions, and what came of them."""
        ends = (row["terminated"] | row["truncated"])[:, 0]
        begins = np.concatenate(([self._running[env] is None], ends[:-1]))
        numbers = self.written + np.arange(len(ends)) + np.cumsum(begins)  # of the observations after the steps
        slots, first = self.slots(numbers), self.slots(numbers[begins] - 1)
        self._observations.write(slots, row["observation"])
        self._observations.write(first, observation[begins])
        values = {
            "action": np.eye(self.spec.action_dim, dtype=np.float32)[action] if self.spec.discrete else action,
            **{key: row[key] for key in ("reward", "terminated", "truncated")},
            "is_first": np.zeros((len(ends), 1), np.bool_),
            "env": np.full((len(ends), 1), env, np.int32),
        }
        for key, column in self._small.items():
            column[slots] = values[key]
            column[first] = 0
        self._small["is_first"][first] = True
        self._small["env"][first] = env
        count = len(ends) + int(begins.sum())
        if not begins[0]:
            self._continue(env, numbers, ends, 0)
        for t in np.flatnonzero(begins).tolist():
            self._begin(env).append(int(numbers[t]) - 1)
            self._continue(env, numbers, ends, t)
        if ends[-1]:
            self._running[env] = None
        self._advance(count)
        self._live = None

    def _begin(self, env: int) -> array:
        episode = array("q")
        self._episodes.append(episode)
        self._running[env] = episode
        return episode

    def _continue(self, env: int, numbers: np.ndarray, ends: np.ndarray, start: int) -> None:
        """Adds the steps from `start` to the end of their episode, or of these steps, to the running episode."""
        over = np.flatnonzero(ends[start:])
        stop = start + int(over[0]) + 1 if len(over) else len(ends)
        episode = self._running[env]
        assert episode is not None
        episode.extend(numbers[start:stop].tolist())

    def truncate_running_episodes(self, envs: Iterable[int] | None = None) -> None:
        """Marks the newest frame of each environment as truncated, where new episodes start out of turn.

        Args:
            envs: of these environments only.
        """
        for env in range(self.num_envs) if envs is None else envs:
            episode = self._running[env]
            if episode is not None:
                self._mark(self.slots(episode[-1]))
                self.marks.append(episode[-1])
                self._running[env] = None

    def running_episodes(self) -> TensorDictBase | None:
        """Returns the running episodes so far, `[num_envs, T]`; None if none is running.

        The newest frames are the last ones. Before a shorter episode its first frame is repeated, and `"is_first"` is
        true for all of these; where no episode is running, for all frames, which are then any.
        """
        oldest = self.oldest
        running = [episode and episode[bisect_left(episode, oldest) :] for episode in self._running]
        length = max(len(episode or ()) for episode in running)
        if length == 0:
            return None
        numbers = np.full((self.num_envs, length), oldest)
        is_first = torch.ones(self.num_envs, length, 1, dtype=torch.bool)
        for env, episode in enumerate(running):
            if episode:
                numbers[env], numbers[env, length - len(episode) :] = episode[0], episode
                is_first[env, length - len(episode) + 1 :] = False
        frames = self._gather(numbers, torch.ones_like(is_first))
        frames["is_first"] = is_first
        return frames

    # ------------------------------------------------------------------ sampling
    def sample(
        self, count: int, length: int, choice: EpisodeChoice = "episodes", short: ShortEpisodes = "skip"
    ) -> TensorDictBase:
        """Sequences of consecutive frames of one episode, `[count, length]`.

        Besides the stored keys there is `"mask"` `[count, length, 1]`, False where a short episode was padded: its last
        observation is repeated there with action and reward 0.

        Args:
            choice: `"episodes"`: an episode uniformly, then its start uniformly, as Dreamer does; `"windows"`: uniform
                over all sequences that there are. Unlike Dreamer's, either may end with the last frame of an episode.
            short: what becomes of episodes with fewer frames: `"skip"`, as Dreamer, or `"pad"`.

        Raises:
            OptionError: if the replay holds no such sequence.
        """
        episodes, lengths = self._live_episodes()
        eligible = np.flatnonzero(lengths >= (length if short == "skip" else min(2, length)))
        if not len(eligible):
            raise OptionError(
                "data.sequence_length",
                length,
                f"episodes of at least {length} frames in the replay, whose longest has {lengths.max(initial=0)} "
                "(raise data.learning_starts, lower the length, or data.short_episodes=pad)",
            )
        windows = np.maximum(lengths[eligible] - length + 1, 1)
        if choice == "episodes":
            picked = torch.randint(len(eligible), (count,)).numpy()
            share = torch.rand(count, dtype=torch.float64).numpy()
            starts = np.minimum((share * windows[picked]).astype(np.int64), windows[picked] - 1)
        else:
            upto = np.cumsum(windows)
            flat = torch.randint(int(upto[-1]), (count,)).numpy()
            picked = np.searchsorted(upto, flat, side="right")
            starts = flat - (upto[picked] - windows[picked])
        numbers = np.empty((count, length), np.int64)
        mask = torch.ones(count, length, 1, dtype=torch.bool)
        for i, (episode, start) in enumerate(zip(eligible[picked].tolist(), starts.tolist(), strict=True)):
            part = episodes[episode][start : start + length]
            numbers[i, : len(part)] = part
            numbers[i, len(part) :] = part[-1]
            mask[i, len(part) :] = False
        return self._gather(numbers, mask)

    def _gather(self, numbers: np.ndarray, mask: Tensor) -> TensorDictBase:
        slots = torch.from_numpy(self.slots(numbers))
        flat, shape = slots.reshape(-1), slots.shape
        seen = self._observations.read(flat)
        out: dict[str, Any] = {"observation": seen.view(*shape, *seen.shape[1:]), "mask": mask}
        for key, column in self._small.items():
            if key != "env":
                out[key] = torch.from_numpy(column).index_select(0, flat).view(*shape, column.shape[1])
        if not mask.all():
            for key in ("action", "reward"):
                out[key] *= mask
        return TensorDict(out, shape)

    def _live_episodes(self) -> tuple[list[array], np.ndarray]:
        """Episodes with frames that are still there, the oldest first, and how many frames that are."""
        if self._live is None:
            oldest = self.oldest
            self._episodes = [numbers for numbers in self._episodes if numbers[-1] >= oldest]
            for numbers in self._episodes:
                if numbers[0] < oldest:
                    del numbers[: bisect_left(numbers, oldest)]
            self._episodes.sort(key=lambda numbers: numbers[0])  # so that a resumed run has the same order
            self._live = self._episodes, np.array([len(numbers) for numbers in self._episodes], np.int64)
        return self._live

    # ------------------------------------------------------------------ checkpoint
    def _read(self, slots: Tensor) -> dict[str, Tensor]:
        small = {key: torch.from_numpy(column)[slots] for key, column in self._small.items()}
        return small | {"observation": self._observations.read(slots)}

    def _restore_rows(self, slot: int, rows: dict[str, Tensor]) -> None:
        slots = slot + np.arange(len(rows["observation"]))
        self._observations.write(slots, rows["observation"].numpy())
        for key, column in self._small.items():
            column[slots] = rows[key].numpy()

    def _mark(self, slot: int) -> None:
        self._small["truncated"][slot] = True

    def _restored(self) -> None:
        """Finds the episodes again."""
        small = self._small
        for number in range(self.oldest, self.written):
            slot = self.slots(number)
            env = int(small["env"][slot, 0])
            episode = None if small["is_first"][slot, 0] else self._running[env]
            (self._begin(env) if episode is None else episode).append(number)
            if small["terminated"][slot, 0] or small["truncated"][slot, 0]:
                self._running[env] = None
        self._live = None


def frame_bytes(spec: Spec) -> int:
    """Bytes of a stored frame: observation, action, reward, three flags, the environment's and the frame's number."""
    observation = spec.observation_dim * (1 if spec.pixels else 4)
    return observation + 4 * (spec.action_dim + 1) + 3 + 4 + 8
