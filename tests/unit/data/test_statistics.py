"""Returns of training episodes, from frames that a collector fills again and again."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.data.statistics import EpisodeStatistics


def frames(reward: float, ends: bool) -> TensorDictBase:
    flag = torch.full((1, 2, 1), False)
    following = {"reward": torch.full((1, 2, 1), reward), "terminated": flag.clone(), "truncated": flag.clone()}
    following["truncated"][0, -1] = ends
    return TensorDict({"next": following}, [1, 2]).lock_()


def test_the_same_frames_filled_again_and_other_frames_both_count() -> None:
    meter, first = EpisodeStatistics(1), frames(1.0, ends=False)
    meter.add(first)
    first["next", "reward"].fill_(10.0)
    meter.add(first)
    meter.add(frames(100.0, ends=True))
    assert meter.pop() == {"train/return": 2.0 + 20.0 + 200.0, "train/episode_length": 6.0}
    first["next", "truncated"][0, -1] = True
    meter.add(first)
    assert meter.pop() == {"train/return": 20.0, "train/episode_length": 2.0}
