"""Observations as one float32 vector: of arrays, of one of n, and of dictionaries and tuples of these.

Gymnasium's `spaces.flatten` says how: the entries of a dictionary follow each other in the order of its space (its keys
sorted, if the space was made from a plain dict), nested ones in the place of their key; one of n is its one-hot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, flatdim, flatten, flatten_space

from lit_mbrl.envs.state import StatefulWrapper
from lit_mbrl.envs.wrappers.images import is_image
from lit_mbrl.utils.errors import OptionError, did_you_mean

_LEAVES = (Box, Discrete, MultiBinary, MultiDiscrete)


class FlatObservation(StatefulWrapper):
    """The observation as a float32 vector.

    Args:
        env: its observation is an array, one of n, or a dictionary or tuple of these; no image.
        name: of the environment, for messages.
        keys: which entries of a dictionary, in this order; None: all, in the space's.

    Attributes:
        parts: columns of the vector by entry, `observation`, `goal/position`; empty if it is not of several entries.
        states: n, if the observation is one of n; None if it is not.

    Raises:
        OptionError: for observations of another kind, and for keys that there are not.
    """

    def __init__(self, env: gym.Env, name: str, keys: list[str] | None = None) -> None:
        super().__init__(env)
        self._space = _chosen(env.observation_space, name, keys)
        for part, leaf in leaves(self._space):
            if not isinstance(leaf, _LEAVES) or is_image(leaf):
                what = f"observation {part!r} is {leaf}" if part else f"observation is {leaf}"
                expected = "an environment whose observation is an image, an array, one of n, or a dictionary of these"
                raise OptionError("data.env.name", name, f"{expected} but for images (its {what})")
        space = flatten_space(self._space)
        assert isinstance(space, Box)  # of such leaves it is
        low, high = (np.ravel(bound).astype(np.float32) for bound in (space.low, space.high))
        self.observation_space = Box(low, high, dtype=np.float32)
        self.parts = columns(self._space)
        self.states = int(self._space.n) if isinstance(self._space, Discrete) else None
        self._is_array = isinstance(self._space, Box)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [O] float32 and info."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.flat(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict]:
        """Gymnasium's step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self.flat(observation), reward, terminated, truncated, info

    def flat(self, observation: Any) -> np.ndarray:
        """Returns the vector [O] float32 of an observation as the environment hands it over."""
        flat = np.ravel(observation) if self._is_array else flatten(self._space, observation)
        return flat.astype(np.float32)


def leaves(space: gym.Space, name: str = "") -> Iterator[tuple[str, gym.Space]]:
    """Yields the spaces of a nested one by the path of their keys, `goal/position`, in the order of the vector."""
    if isinstance(space, Dict | Tuple):
        inner = space.items() if isinstance(space, Dict) else enumerate(space)
        for key, part in inner:
            yield from leaves(part, f"{name}/{key}" if name else str(key))
    else:
        yield name, space


def columns(space: gym.Space) -> dict[str, slice]:
    """Returns the columns of each entry in the flat vector; none if it is one array, or one of n."""
    found: dict[str, slice] = {}
    start = 0
    for name, leaf in leaves(space):
        found[name] = slice(start, start + flatdim(leaf))
        start = found[name].stop
    return {} if set(found) == {""} else found


def what_differs(space: gym.Space, observation: Any, name: str = "") -> str | None:
    """Says why `observation` is no element of a nested space, bounds and dtypes aside; None: it is one."""
    where = f" {name!r}" if name else ""
    if isinstance(space, Dict):
        if not isinstance(observation, Mapping) or set(observation) < set(space.spaces):
            keys = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
            return f"observation{where} is {keys}, not a dictionary of {sorted(space.spaces)}"
        parts: Iterator[tuple[Any, gym.Space, Any]] = ((key, part, observation[key]) for key, part in space.items())
    elif isinstance(space, Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            return f"observation{where} is not a tuple of {len(space.spaces)}"
        parts = ((i, part, observation[i]) for i, part in enumerate(space.spaces))
    elif isinstance(space, Box):
        array = observation if isinstance(observation, np.ndarray) else np.asarray(observation)
        if array.dtype.kind not in "biuf":
            return f"observation{where} is of {array.dtype}, not numbers"
        same = array.shape == space.shape
        return None if same else f"observation{where} has shape {list(array.shape)}, not {list(space.shape)}"
    else:
        known = space.contains(observation)
        return None if known else f"observation{where} is {observation!r}, which is not in {space}"
    for key, part, value in parts:
        if problem := what_differs(part, value, f"{name}/{key}" if name else str(key)):
            return problem
    return None


def _chosen(space: gym.Space, name: str, keys: list[str] | None) -> gym.Space:
    if keys is None:
        return space
    if not isinstance(space, Dict):
        raise OptionError("data.env.observation_keys", keys, f"null: the observation of {name} is no dictionary")
    for key in keys:
        if key not in space.spaces:
            expected = f"some of {', '.join(map(str, space.spaces))}{did_you_mean(key, list(space.spaces))}"
            raise OptionError("data.env.observation_keys", keys, expected)
    return Dict([(key, space[key]) for key in keys])
