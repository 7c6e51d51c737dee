"""Checks that what environments hand over is finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lit_mbrl.envs.transition import Transition


def is_finite(values: np.ndarray) -> bool:
    """Returns whether no value is NaN or infinite, at the price of a scalar product; True for integers."""
    if values.dtype.kind != "f":
        return True
    flat = values.reshape(-1)
    # The squares of large numbers may be infinite where the numbers are not.
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(values).all())


def faulty_rows(transition: Transition) -> np.ndarray:
    """`[n]` bool: the copies whose observation or reward is NaN or infinite."""
    good = np.isfinite(transition.reward[:, 0])
    if transition.observation.dtype.kind == "f":
        good &= np.isfinite(transition.observation).reshape(len(good), -1).all(-1)
    return ~good


def where_not_finite(observation: np.ndarray, reward: Any) -> str | None:
    """Returns which value of a step is NaN or infinite, and at which index; None if none is."""
    if observation.dtype.kind == "f" and not np.isfinite(observation).all():
        flat = observation.reshape(-1)
        (bad,) = np.nonzero(~np.isfinite(flat))
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"its observation is {flat[bad[0]]:g} at index {bad[0]}{more}"
    return None if np.isfinite(reward) else f"its reward is {float(reward):g}"
