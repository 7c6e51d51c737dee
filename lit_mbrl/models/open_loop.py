"""Measures the open-loop errors of a world model, several steps ahead."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

_WINDOWS = 1024


def open_loop_errors(model: Any, episodes: TensorDictBase, steps: int) -> dict[str, Tensor]:
    """`model/mse_h`: mean squared error of the observation predicted h steps ahead (the quantity of SVG fig. 3).

    Over windows of episodes, at most some thousand, with the true actions, in the units that the model works in.

    Args:
        model: has `unroll(observation [B, O], actions [B, T, A]) -> [B, T, O]`.
        episodes: `[K, T]`, `"mask"` marks the frames of an episode.
        steps: the longest prediction; shorter episodes have none, and 0 none at all.
    """
    if steps == 0 or episodes.shape[1] < steps:
        return {}
    # [K, T, ...] -> every window of `steps` consecutive frames, [K, T - steps + 1, ..., steps]
    whole = episodes["mask"].unfold(1, steps, 1).all(-1)
    starts = whole.nonzero()
    if not len(starts):
        return {}
    starts = starts[:: max(1, len(starts) // _WINDOWS)]
    episode, first = starts[:, :1], starts[:, 1:] + torch.arange(steps, device=starts.device)
    windows = episodes[episode, first]
    predicted = model.unroll(windows["observation"][:, 0], windows["action"])
    error = (predicted - windows["next", "observation"]).square().mean((0, 2))
    return {f"model/mse_{h + 1}": error[h] for h in range(steps)}
