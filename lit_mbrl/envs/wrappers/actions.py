"""Actions in [-1, 1] for environments with other ranges."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from lit_mbrl.envs.state import StatefulWrapper
from lit_mbrl.utils.errors import OptionError


class ScaledAction(StatefulWrapper):
    """Actions of [-1, 1] where Gymnasium's `RescaleAction` goes wrong: integers, entries that cannot be chosen.

    -1 is the lowest and 1 the highest action, linearly between; an integer is the nearest one. An entry whose bounds
    are equal is that value.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space: Any = env.action_space
        self._dtype = space.dtype
        self._low, self._high = space.low, space.high
        # float64 has every integer up to 2**53, and the width of any float32 range.
        self._start = space.low.astype(np.float64)
        self._width = space.high.astype(np.float64) - self._start
        one = np.ones(space.shape, np.float32)
        self.action_space = Box(-one, one, dtype=np.float32)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Gymnasium's step."""
        return self.env.step(self.action(action))

    def action(self, action: Any) -> np.ndarray:
        """Returns the environment's actions `[..., A]` of those in [-1, 1]."""
        scaled = self._start + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0 * self._width
        if self._dtype.kind in "iu":
            scaled = np.rint(scaled)
        return np.clip(scaled.astype(self._dtype), self._low, self._high)


def scale_actions(env: gym.Env, name: str) -> gym.Env:
    """The environment with actions in [-1, 1] float32, whatever its bounds and its type.

    Raises:
        OptionError: if there is no such map.
    """
    space = env.action_space
    assert isinstance(space, Box)  # the others have no range
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.subtract(space.high, space.low, dtype=np.float64)
        largest = np.maximum(np.abs(space.low.astype(np.float64)), np.abs(space.high.astype(np.float64)))
    expected = None
    if not np.isfinite(largest).all():
        expected = "finite action bounds"
    elif space.dtype.kind not in "iuf":
        expected = f"actions of numbers, not {space.dtype}"
    elif (width < 0).any():
        expected = "no action bound above the other"
    elif not np.isfinite(width).all():
        expected = "action bounds whose difference is finite"
    elif (width == 0).all():
        expected = "actions that can be chosen: its lowest are its highest"
    elif space.dtype.kind in "iu" and (largest > 2**53).any():
        expected = "integer actions up to 2**53"
    if expected is not None:
        env.close()
        raise OptionError("data.env.name", name, f"an environment with {expected} ({space})")
    # Gymnasium's own arithmetic is that of the space's type, in which such bounds leave too few digits, or none.
    if space.dtype.kind in "iu" or (width <= 1e-3 * largest).any() or (largest > 1e30).any():
        return ScaledAction(env)
    if (space.low != -1.0).any() or (space.high != 1.0).any():
        one = np.ones(space.shape, np.float32)
        return gym.wrappers.RescaleAction(env, -one, one)
    return env
