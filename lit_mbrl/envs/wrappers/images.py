"""Images as observations: uint8 `[C, H, W]`, from the environment to the network."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from lit_mbrl.envs.state import StatefulWrapper

_CHANNELS = (1, 3, 4)


def is_image(space: gym.Space) -> bool:
    """Returns whether observations are uint8 images: `[H, W]`, or with channels at either end."""
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def is_channel_first(shape: tuple[int, ...]) -> bool:
    """Returns whether an image's shape is `[C, H, W]` already, without colours or stacked frames in the last axis."""
    return len(shape) == 3 and (shape[0] < shape[2] or shape[2] not in _CHANNELS)


def channel_first(image: np.ndarray) -> np.ndarray:
    """`[C, H, W]`, contiguous, of an image `[H, W, C]` or `[H, W]`."""
    return np.ascontiguousarray(image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """`[size, size, C]` uint8 of an image `[H, W, C]` uint8: each pixel is the mean of the pixels it covers.

    The same pixels as those of `torch.nn.functional.interpolate(mode="area")`, without torch.
    """
    height, width, channels = image.shape
    if (height, width) == (size, size):
        return image
    rows = _covers(height, size) @ image.reshape(height, -1).astype(np.float32)
    columns = _covers(width, size) @ rows.reshape(size, width, channels)
    return np.rint(columns).astype(np.uint8)


@cache
def _covers(pixels: int, size: int) -> np.ndarray:
    """`[size, pixels]` float32: the share of every old pixel in every new one."""
    shares = np.zeros((size, pixels), np.float32)
    for i in range(size):
        first, last = i * pixels // size, -(-(i + 1) * pixels // size)
        shares[i, first:last] = 1.0 / (last - first)
    return shares


class ChannelFirst(StatefulWrapper):
    """Images `[H, W, C]` or `[H, W]` as `[C, H, W]`."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        height, width, *channels = env.observation_space.shape or ()
        self.observation_space = Box(0, 255, (*(channels or [1]), height, width), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Image [C, H, W] uint8 and info."""
        image, info = self.env.reset(seed=seed, options=options)
        return channel_first(image), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict]:
        """Gymnasium's step."""
        image, reward, terminated, truncated, info = self.env.step(action)
        return channel_first(image), reward, terminated, truncated, info
