"""Deterministic evaluation episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.buffers.transitions import STORED
from lit_mbrl.envs.vector import VectorEnv


@torch.no_grad()
def run_episodes(
    env: VectorEnv, act: Callable[[Tensor, Tensor], Tensor], max_steps: int, keys: Sequence[Any] = STORED
) -> TensorDictBase:
    """One episode in each environment, side by side, from a fresh reset.

    Args:
        env: K environments side by side; those whose episode is over play on, and it is not kept.
        act: maps raw observations `[K, O]` and their `is_init` `[K, 1]` to actions `[K, A]`.
        max_steps: where environments without a time limit of their own are cut.
        keys: what is kept of a frame.

    Returns:
        Frames `[K, T]` with these keys, by default the replay's, and `"mask"` `[K, T]`, True up to and including the
        episode's last frame.
    """
    observation = env.restart(None)
    is_init = np.ones((env.config.num_envs, 1), np.bool_)
    alive = np.ones(env.config.num_envs, np.bool_)
    steps: list[dict[Any, np.ndarray]] = []
    for _ in range(max_steps):
        action = act(torch.from_numpy(observation), torch.from_numpy(is_init))
        following = env.advance(action.detach().numpy())
        step = {("next", key): value for key, value in following._asdict().items()}
        step |= {"observation": observation, "action": action.detach().numpy(), "mask": alive}
        steps.append({key: step[key] for key in (*keys, "mask")})
        is_init = following.terminated | following.truncated
        alive = alive & ~is_init[:, 0]
        if not alive.any():
            break
        observation = following.observation
        if is_init.any():
            rows = is_init.reshape(-1, *[1] * (observation.ndim - 1))
            observation = np.where(rows, env.restart(is_init[:, 0]), observation)
    shape = (len(alive), len(steps))
    frames = {key: torch.from_numpy(np.stack([step[key] for step in steps], 1)) for key in steps[0]}
    ending = {key[1]: value for key, value in frames.items() if isinstance(key, tuple)}
    root = {key: value for key, value in frames.items() if isinstance(key, str)}
    return TensorDict(root | {"next": TensorDict(ending, shape)}, shape)
