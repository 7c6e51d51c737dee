"""Deterministic evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from lit_mbrl.data.buffers.transitions import STORED


@torch.no_grad()
def run_episodes(
    env: EnvBase, act: Callable[[Tensor, Tensor], Tensor], max_steps: int, keys: Sequence[Any] = STORED
) -> TensorDictBase:
    """One episode in each environment, side by side, from a fresh reset.

    Args:
        env: a batched environment, batch size `[K]`.
        act: maps raw observations `[K, O]` and their `is_init` `[K, 1]` to actions `[K, A]`.
        max_steps: where environments without a time limit of their own are cut.
        keys: what is kept of a frame.

    Returns:
        Frames `[K, T]` with these keys, by default the replay's, and `"mask"` `[K, T]`, True up to and including the
        episode's last frame.
    """
    root = env.reset()
    alive = torch.ones(env.batch_size, dtype=torch.bool)
    frames = []
    for _ in range(max_steps):
        root["action"] = act(root["observation"], root["is_init"])
        frame, root = env.step_and_maybe_reset(root)
        kept = frame.select(*keys)
        kept["mask"] = alive
        frames.append(kept)
        alive = alive & ~frame["next", "done"].squeeze(-1)
        if not alive.any():
            break
    return torch.stack(frames, 1)
