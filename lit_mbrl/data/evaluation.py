"""Deterministic evaluation episodes, in numbers and in pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from lit_mbrl.data.replay import STORED
from lit_mbrl.envs import EnvConfig, make_gym


@torch.no_grad()
def run_episodes(env: EnvBase, act: Callable[[Tensor], Tensor], max_steps: int) -> TensorDictBase:
    """One episode in each environment, side by side, from a fresh reset.

    Args:
        env: a batched environment, batch size `[K]`.
        act: maps raw observations `[K, O]` to actions `[K, A]`.
        max_steps: where environments without a time limit of their own are cut.

    Returns:
        Frames `[K, T]` with the replay's keys and `"mask"` `[K, T]`, True up to and including the episode's last frame.
    """
    root = env.reset()
    alive = torch.ones(env.batch_size, dtype=torch.bool)
    frames = []
    for _ in range(max_steps):
        root["action"] = act(root["observation"])
        frame, root = env.step_and_maybe_reset(root)
        kept = frame.select(*STORED)
        kept["mask"] = alive
        frames.append(kept)
        alive = alive & ~frame["next", "done"].squeeze(-1)
        if not alive.any():
            break
    return torch.stack(frames, 1)


def make_renderer(config: EnvConfig) -> gym.Env:
    """One copy of an environment that draws what happens, tried out once.

    Raises:
        RuntimeError: if it cannot draw; the text, one line, says why.
    """
    try:
        env = make_gym(
            config.name,
            max_episode_steps=config.max_episode_steps,
            **(config.kwargs | {"render_mode": "rgb_array"}),
        )
    except ValueError as error:
        raise RuntimeError(_one_line(error)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of, they raise next
            env.reset(seed=0)
            picture = env.render()
    # Simulators and their graphics libraries have errors of their own, down to plain `Exception`.
    except Exception as error:
        env.close()
        raise RuntimeError(_one_line(error)) from error
    if not isinstance(picture, np.ndarray):
        env.close()
        raise RuntimeError(f"render() gave {type(picture).__name__} instead of a picture")
    return env


@torch.no_grad()
def film_episode(env: gym.Env, act: Callable[[Tensor], Tensor], max_steps: int, seed: int) -> np.ndarray:
    """The pictures of one episode, uint8 `[T + 1, h, w, 3]`, the first one of the start.

    Args:
        env: from `make_renderer`.
        act: maps raw observations `[1, O]` to actions `[1, A]`, or `[1]` indices.
        max_steps: where an environment without a time limit of its own is cut.
        seed: of the episode.
    """
    first = int(env.action_space.start) if isinstance(env.action_space, gym.spaces.Discrete) else None
    observation, _ = env.reset(seed=seed)
    pictures = [env.render()]
    for _ in range(max_steps):
        action = act(torch.from_numpy(observation)[None])[0].numpy()
        observation, _, terminated, truncated, _ = env.step(action if first is None else int(action) + first)
        pictures.append(env.render())
        if terminated or truncated:
            break
    return np.stack(pictures)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
