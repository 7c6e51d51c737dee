"""Rollouts of frames, one for each action: the imagination core of Weber et al. 2017 (arXiv 1707.06203v2), section 3.1.

    action i first, then the rollout policy's         o_t, i -> model -> o_t+1, pi_hat(o_t+1) -> model -> o_t+2 ...

`N` frames `[h, w]` of `K` classes, `A` actions, `T` steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lit_mbrl.models.frame_model import to_planes


class FrameStep(Protocol):
    """A model of frames: `FrameModel`, `CopyModel`."""

    def step(self, planes: Tensor, action: Tensor) -> tuple[Tensor, Tensor]: ...


class FrameRollouts(NamedTuple):
    """Imagined steps, of rollout i those after action i.

    | field | shape | |
    |---|---|---|
    | `frames` | `[N, A, T, h, w]` | uint8, classes |
    | `rewards` | `[N, A, T]` | uint8, classes |
    | `actions` | `[N, A, T]` | int64, that led there |
    """

    frames: Tensor
    rewards: Tensor
    actions: Tensor


@torch.no_grad()
def imagine_frames(
    model: FrameStep, policy: Callable[[Tensor], Tensor], cells: Tensor, classes: int, gumbel: Tensor
) -> FrameRollouts:
    """Imagines a rollout for each action from each frame, all of them as one batch. A constant: no gradient.

    Args:
        model: of frames.
        policy: planes `[n, K, h, w]` to logits `[n, A]`.
        cells: `[N, h, w]`, classes of the pixels.
        classes: K.
        gumbel: `[T - 1, N, A, A]`, the noise that draws actions from logits.
    """
    count, actions = cells.shape[0], gumbel.shape[-1]
    action = torch.arange(actions, device=cells.device).repeat(count)
    planes = to_planes(cells, classes).repeat_interleave(actions, 0)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(len(gumbel) + 1):
        if t:
            planes = to_planes(steps[-1][0], classes)
            action = (policy(planes) + gumbel[t - 1].flatten(0, 1)).argmax(-1)
        steps.append((*model.step(planes, action), action))
    frames, rewards, taken = (torch.stack(each, 1).unflatten(0, (count, actions)) for each in zip(*steps, strict=True))
    return FrameRollouts(frames, rewards, taken)
