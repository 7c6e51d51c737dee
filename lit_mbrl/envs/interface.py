"""Translates between an environment's own observations and actions and those of agents, one or many at a time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.vector.utils import batch_space, iterate

from lit_mbrl.envs.make import make_configured
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.wrappers.actions import ScaledAction
from lit_mbrl.envs.wrappers.flat import FlatObservation, what_differs
from lit_mbrl.envs.wrappers.images import ChannelFirst, channel_first
from lit_mbrl.envs.wrappers.pixels import PixelObservation
from lit_mbrl.utils.errors import UsageError


class Interface:
    """Observations and actions of an environment as Gymnasium has them, for an agent that was trained in it.

    Args:
        config: the environment. Of several tasks it is the first.

    Attributes:
        observation_space: the environment's own; of one that is seen as images it draws, any images `[H, W, 3]`.
        action_space: the environment's own.

    Raises:
        UsageError: if transforms of TorchRL stand between the environment and the agent.
    """

    def __init__(self, config: EnvConfig) -> None:
        if config.transforms:
            raise UsageError(f"data.env.transforms={config.transforms}: expected none, or what they make of each frame")
        env = make_configured(config.of_copy(0))
        self._to_agent: list[Any] = []
        self._to_env: list[Any] = []
        layer = env
        self._drawn = isinstance(env, PixelObservation) and not isinstance(env.env, ChannelFirst)
        while isinstance(layer, gym.Wrapper):
            if isinstance(layer, FlatObservation | ChannelFirst | PixelObservation):
                self._to_agent.append(layer)
                self.observation_space: gym.Space = layer.env.observation_space
            elif isinstance(layer, ScaledAction | gym.wrappers.RescaleAction):
                self._to_env.append(layer)
            layer = layer.env
        if not self._to_agent:
            self.observation_space = env.observation_space
        self.action_space = layer.action_space
        self._dtype = env.observation_space.dtype
        env.close()

    def observation(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Returns observations as the agent sees them, `[N, ...]`, and whether there was but one.

        Args:
            observation: one as the environment hands it over, or a batch, as Gymnasium's vector environments do.

        Raises:
            UsageError: if it is neither.
        """
        if self._drawn:
            return self._images(np.asarray(observation))
        space = self.observation_space
        try:
            if what_differs(space, observation) is None:
                return self._seen(observation)[None], True
            count = _count(space, observation)
            rows = [] if count is None else list(iterate(batch_space(space, count), observation))
            problem = what_differs(space, observation) if not rows else what_differs(space, rows[0])
        except (ValueError, TypeError, KeyError) as error:  # of what is no array at all, as reset's (observation, info)
            raise UsageError(f"act: expected an observation of {space}, or a batch of these ({error})") from error
        if problem is not None:
            raise UsageError(f"act: its {problem} (nor is it a batch of these)")
        return np.stack([self._seen(row) for row in rows]), False

    def _seen(self, observation: Any) -> np.ndarray:
        for layer in reversed(self._to_agent):
            if isinstance(layer, FlatObservation):
                observation = layer.flat(observation)
            elif isinstance(layer, ChannelFirst):
                observation = channel_first(observation)
            else:
                observation = layer.image(np.moveaxis(observation, 0, -1))
        return np.asarray(observation, self._dtype)  # many environments are not as exact as their spaces

    def _images(self, images: np.ndarray) -> tuple[np.ndarray, bool]:
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            shape = f"{list(images.shape)} of {images.dtype}"
            raise UsageError(f"act: expected drawn images [H, W, 3] of uint8, or a batch of them, not {shape}")
        drawn = images[None] if images.ndim == 3 else images
        return np.stack([self._to_agent[0].image(image) for image in drawn]), images.ndim == 3

    def action(self, action: np.ndarray) -> np.ndarray:
        """Returns the environment's actions of the agent's: `[N, A]` in [-1, 1], or indices `[N]`."""
        space = self.action_space
        if isinstance(space, Discrete):
            return action + space.start
        assert isinstance(space, Box)  # the others are refused by `make_gym`
        action = action[:, : space.shape[0]]
        for layer in self._to_env:
            action = layer.action(np.clip(action, -1.0, 1.0))
        return np.asarray(action, space.dtype)


def _count(space: gym.Space, observation: Any) -> int | None:
    """Returns how many observations a batch has; None if it looks like none."""
    if isinstance(space, Dict):
        key, inner = next(iter(space.items()))
        return _count(inner, observation[key]) if isinstance(observation, dict) and key in observation else None
    if isinstance(space, Tuple):
        return _count(space.spaces[0], observation[0]) if isinstance(observation, tuple) and observation else None
    shape = np.shape(observation)
    return shape[0] if len(shape) == len(space.shape or ()) + 1 else None
