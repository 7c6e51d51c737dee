"""Sokoban for `VectorEnv`: all copies stepped together, with the results of `LocalPool`'s single ones, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from lit_mbrl.envs.guard import guard_of
from lit_mbrl.envs.make import make_configured, spec_of
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.envs.tasks.sokoban import NAME
from lit_mbrl.envs.tasks.sokoban.games import Games, Settings
from lit_mbrl.envs.transition import Transition


def is_batched(config: EnvConfig) -> bool:
    """Returns whether copies of this environment can be stepped together: Sokoban as it is, in this process."""
    plain = config.pixels is None and config.action_repeat == 1 and not (config.transforms or config.other_tasks)
    return config.name == NAME and plain and not config.workers and "render_mode" not in config.kwargs


class SokobanPool:
    """`count` games with `LocalPool`'s interface and states.

    Raises:
        OptionError: if an option is wrong.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        self._single = make_configured(config)  # checks options; and states of games are read and set by it
        self._single.reset(seed=0)
        self.spec = spec_of(self._single, config.name)
        self._limit = self.spec.max_episode_steps
        self._games = Games(Settings(**config.kwargs), count)
        self._seeded = np.zeros(count, np.bool_)
        self._shape = count, *self.spec.observation_shape

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """See `LocalPool.reset`."""
        rows = np.arange(len(seeds)) if mask is None else np.flatnonzero(mask)
        for row in rows.tolist():
            if seeds[row] is not None or not self._seeded[row]:
                self._games.seed(row, seeding.np_random(seeds[row])[0])
                self._seeded[row] = True
            self._games.begin(row)
        observation = np.zeros(self._shape, np.uint8)
        observation[rows] = self._games.observe(rows)
        return observation

    def step(self, actions: np.ndarray, mask: np.ndarray | None = None) -> Transition:
        """See `LocalPool.step`."""
        if mask is None:
            outcome = self._games.step(actions)
            late = np.zeros_like(outcome.solved) if self._limit is None else self._games.steps >= self._limit
            return Transition(self._games.observe(), outcome.reward[:, None], outcome.solved[:, None], late[:, None])
        rows, count = np.flatnonzero(mask), len(mask)
        out = Transition(
            np.zeros(self._shape, np.uint8),
            np.zeros((count, 1), np.float32),
            np.zeros((count, 1), np.bool_),
            np.zeros((count, 1), np.bool_),
        )
        outcome = self._games.step(actions[rows], rows)
        out.observation[rows] = self._games.observe(rows)
        out.reward[rows, 0], out.terminated[rows, 0] = outcome
        out.truncated[rows, 0] = self._limit is not None and self._games.steps[rows] >= self._limit
        return out

    def restarted(self) -> dict[int, np.ndarray]:
        """None: these games live and die with this process."""
        return {}

    def episode_steps(self) -> list[int]:
        """See `LocalPool.episode_steps`."""
        return self._games.steps.tolist()

    def get_state(self) -> list[dict[str, Any] | None]:
        """See `LocalPool.get_state`."""
        states = []
        for row, generator in enumerate(self._games.generators):
            self._game.games.set_state(0, self._games.state(row))
            self._game.np_random = generator
            self._set_steps(int(self._games.steps[row]))
            states.append(get_state(self._single))
        return states

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """See `LocalPool.set_state`."""
        for row, state in enumerate(states):
            self._game.np_random = np.random.default_rng(0)  # one for each game, which `set_state` fills
            set_state(self._single, state)
            self._games.seed(row, self._game.np_random)
            self._games.set_state(row, self._game.games.state(0))
            self._seeded[row] = True

    def close(self) -> None:
        """Does nothing: there is nothing to close."""

    @property
    def _game(self) -> Any:
        return self._single.unwrapped

    def _set_steps(self, steps: int) -> None:
        """Lets the wrappers around the single game count as if it had played."""
        guard_of(self._single).steps = steps
        layer: Any = self._single
        while layer is not self._game:
            if hasattr(layer, "_elapsed_steps"):
                layer._elapsed_steps = steps
            layer = layer.env
