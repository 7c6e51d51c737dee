"""Sokoban as Gymnasium's environment and vector environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from lit_mbrl.envs.tasks.sokoban.games import Games, Settings
from lit_mbrl.envs.tasks.sokoban.rules import ACTIONS

MAX_STEPS = 120
_ENLARGED = 4
_FRAMES_PER_SECOND = 6


def _spaces(games: Games) -> tuple[Box, Discrete]:
    return Box(0, 255, games.observation_shape, np.uint8), Discrete(len(ACTIONS))


class Sokoban(gym.Env):
    """One game; observations `[C, H, W]` uint8, actions nothing, up, down, left and right.

    Args:
        size: cells of a side, 5 to 50, the walls around included, or `[rows, columns]`; left out with `files`.
        boxes: in each level; left out with `files`.
        levels: `"train"` or `"test"`: no level of the one has the walls and targets of any of the other. None: those of
            training if they are generated, all if they are of `files`.
        num_levels: play the first so many levels; 0: all, of which generated ones are practically without end.
        files: text files in Boxoban's format, or folders of them; None: generate levels.
        observation: `"rgb"`, a pixel per cell; `"symbolic"`, a plane for each of the seven kinds of cell, 255 where it
            is; `"large"`, 8 x 8 pixels per cell.
        render_mode: `"rgb_array"` for images for people; None: none.

    Raises:
        TypeError, ValueError: if an option is wrong.
        OSError: if a file cannot be read.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": _FRAMES_PER_SECOND}

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} is not rgb_array or null")
        self.render_mode = render_mode
        self.games = Games(Settings(**options), 1)
        self.observation_space, self.action_space = _spaces(self.games)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """The next level, and its number as `level`."""
        super().reset(seed=seed)
        if seed is not None:
            self.games.seed(0, self.np_random)
        self.games.generators[0] = self.np_random
        self.games.begin(0)
        return self.games.observe()[0], {"level": int(self.games.numbers[0])}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step; info says as `is_success` whether the level is solved."""
        outcome = self.games.step(np.array([action]))
        solved = bool(outcome.solved[0])
        return self.games.observe()[0], float(outcome.reward[0]), solved, False, {"is_success": solved}

    def render(self) -> np.ndarray | None:
        """The image `[32 h, 32 w, 3]` uint8, None without a render mode."""
        if self.render_mode is None:
            return None
        return self.games.images()[0].repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)

    def extra_state(self) -> dict[str, Any]:
        """Describes board and level, for exact resume."""
        return self.games.state(0)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self.games.set_state(0, state)


class SokobanVector(VectorEnv):
    """`num_envs` games stepped together, what `gymnasium.make_vec` makes; finished ones begin anew in the next step.

    Args:
        num_envs: games.
        max_episode_steps: truncates episodes; None: it does not.
        render_mode: see `Sokoban`.
        **options: see `Sokoban`.
    """

    metadata: ClassVar[dict[str, Any]] = {**Sokoban.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = MAX_STEPS,
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} is not rgb_array or null")
        self.num_envs, self.render_mode, self._limit = num_envs, render_mode, max_episode_steps
        self.games = Games(Settings(**options), num_envs)
        self.single_observation_space, self.single_action_space = _spaces(self.games)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over = np.zeros(num_envs, np.bool_)
        self._seeded = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        """New episodes in all games, `[N, C, H, W]`; game i gets the seed `seed + i`, or its own of a list."""
        if seed is None and not self._seeded:
            seeds: list[Any] = [seeding.np_random()[1] for _ in range(self.num_envs)]
        else:
            seeds = list(seed) if isinstance(seed, list | tuple) else [None] * self.num_envs
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seeds
        for game, each in enumerate(seeds):
            if each is not None:
                self.games.seed(game, seeding.np_random(each)[0])
            self.games.begin(game)
        self._seeded = True
        self._over[:] = False
        return self.games.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Gymnasium's step; a game that was over ignores its action and returns its next first observation."""
        begun = self._over
        for game in np.flatnonzero(begun):
            self.games.begin(int(game))
        rows = np.flatnonzero(~begun) if begun.any() else None
        part = slice(None) if rows is None else rows
        outcome = self.games.step(np.asarray(actions)[part], rows)
        reward, solved = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        reward[part], solved[part] = outcome
        late = np.zeros_like(solved) if self._limit is None else self.games.steps >= self._limit
        self._over = solved | late
        return self.games.observe(), reward, solved, late, {"is_success": solved.copy()}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Images of all games, as `Sokoban.render`."""
        if self.render_mode is None:
            return None
        return tuple(self.games.images().repeat(_ENLARGED, 1).repeat(_ENLARGED, 2))
