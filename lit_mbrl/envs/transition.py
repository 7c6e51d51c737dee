"""Result of a step of several copies of an environment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Transition(NamedTuple):
    """One step of n copies: observation, reward [n, 1] float32, terminated and truncated [n, 1] bool.

    Observations are [n, O] float32, or [n, C, H, W] uint8 of images.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
