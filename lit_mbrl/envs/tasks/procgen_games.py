"""Procgen's sixteen games (Cobbe et al. 2020, arXiv 1912.01588v2) as envpool has them: `procgen/fruitbot-easy`.

A game draws each episode's level from a fixed set, `num_levels` of them from `start_level` on, so that an agent can be
trained on some levels and tested on others.

One engine steps all copies at once (`ProcgenPool`, `LocalPool`'s interface). envpool on its own begins the next episode
in the step after an episode's end, and that step ignores its action; here `reset` of the finished copies alone takes
its place, so that every row of a `step` is a step of the game. An engine's seeds are given when it is made, which takes
milliseconds: a reset with new seeds makes another.

Not called `procgen.py`: TorchRL imports whatever module of that name it finds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.spec import EnvConfig, Spec
from lit_mbrl.envs.transition import Transition
from lit_mbrl.utils.errors import OptionError, did_you_mean, require

# Game -> steps after which Procgen truncates an episode.
GAMES = {
    "bigfish": 6000,
    "bossfight": 4000,
    "caveflyer": 1000,
    "chaser": 1000,
    "climber": 1000,
    "coinrun": 1000,
    "dodgeball": 1000,
    "fruitbot": 1000,
    "heist": 1000,
    "jumper": 1000,
    "leaper": 500,
    "maze": 500,
    "miner": 1000,
    "ninja": 1000,
    "plunder": 4000,
    "starpilot": 1000,
}
MODES = ("easy", "hard")
# What `data.env.kwargs` may say, with Procgen's own defaults; `num_levels: 0` is every level there is.
_COUNTS = {"num_levels": 0, "start_level": 0}
_SWITCHES = {
    "use_sequential_levels": False,
    "center_agent": True,
    "use_backgrounds": True,
    "use_monochrome_assets": False,
    "restrict_themes": False,
    "use_generated_assets": False,
    "paint_vel_info": False,
}
_SHAPE = (3, 64, 64)
_ACTIONS = 15
_ENLARGED = 6


def names() -> list[str]:
    """Names of all games in both modes."""
    return [f"procgen/{game}-{mode}" for game in GAMES for mode in MODES]


def is_game(name: str) -> bool:
    """Returns whether a name asks for one of these games."""
    return name.startswith("procgen/")


def check(config: EnvConfig) -> None:
    """Raises `OptionError` for options of other environments."""
    require(config.action_repeat == 1, "data.env.action_repeat", config.action_repeat, f"1 for {config.name}")
    require(config.pixels is None, "data.env.pixels", config.pixels, f"null for {config.name}, which is seen as it is")


class ProcgenPool:
    """`count` copies of a game, stepped together by envpool, in one thread or, with `workers`, one per CPU core.

    `step` and `reset` are those of `pool.LocalPool`, with observations [n, 3, 64, 64] uint8 and actions [n] in 0..14.
    A game cannot be saved in the middle of an episode.

    Raises:
        OptionError: if there is no such game or option, or a package is missing.
    """

    def __init__(self, config: EnvConfig, count: int) -> None:
        check(config)
        self._task, self._options = _task(config.name), _options(config.kwargs)
        own = GAMES[config.name.partition("/")[2].rpartition("-")[0]]
        # envpool takes a limit and does not keep it, so a shorter one is kept here.
        self._limit = min(own, config.max_episode_steps or own)
        self.spec = Spec(
            config.name,
            int(np.prod(_SHAPE)),
            _ACTIONS,
            discrete=True,
            max_episode_steps=self._limit,
            observation_shape=_SHAPE,
        )
        self._name, self._count = config.name, count
        self._threads = min(count, os.cpu_count() or 1) if config.workers else 1
        self._games: Any = self._make([0] * count)
        self.level_seeds = np.zeros(count, np.int64)
        self._steps = np.zeros(count, np.int64)

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """See `LocalPool.reset`. Seeds are for all copies at once: with one that is not None, everything begins anew.

        Raises:
            ValueError: if there are seeds and some copies shall go on, or some copies have none.
        """
        rows = np.arange(self._count) if mask is None else np.flatnonzero(mask)
        given = [seed for seed in (seeds[row] for row in rows) if seed is not None]
        if given:
            if len(given) < self._count:
                raise ValueError(f"{self._name} can only be seeded in all of its copies at once")
            self._games = self._make(given)
        observation = np.zeros((self._count, *_SHAPE), np.uint8)
        if len(rows):
            first, info = self._games.reset(rows.astype(np.int32))
            observation[info["env_id"]] = first
            self.level_seeds[info["env_id"]] = info["level_seed"]
            self._steps[rows] = 0
        return observation

    def step(self, actions: np.ndarray, mask: np.ndarray | None = None) -> Transition:
        """See `LocalPool.step`, but for `mask`: envpool steps all copies, and what they return is finite."""
        assert mask is None
        observation, reward, terminated, truncated, _ = self._games.step(actions.astype(np.int32))
        self._steps += 1
        truncated = truncated | (self._steps >= self._limit) & ~terminated
        return Transition(
            observation, reward.astype(np.float32)[:, None], terminated[:, None].copy(), truncated[:, None]
        )

    def restarted(self) -> dict[int, np.ndarray]:
        """None: these copies live and die with this process."""
        return {}

    def episode_steps(self) -> list[int]:
        """See `LocalPool.episode_steps`."""
        return self._steps.tolist()

    def get_state(self) -> list[dict[str, Any] | None]:
        """None for every copy: envpool has no states of Procgen."""
        return [None] * self._count

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Never called: there are no states."""
        raise ValueError(f"{self._name} has no states")

    def close(self) -> None:
        """Ends the engine and its threads."""
        if self._games is not None:
            self._games.close()
            self._games = None

    def _make(self, seeds: Sequence[int]) -> Any:
        try:
            import envpool

            return envpool.make(
                self._task,
                env_type="gymnasium",
                num_envs=self._count,
                num_threads=self._threads,
                env_seed=[seed % 2**31 for seed in seeds],
                **self._options,
            )
        except ImportError as error:
            raise OptionError("data.env.name", self._name, f"Procgen to be installed: {_remedy(error)}") from error


class ProcgenGame(gym.Env):
    """A single copy, for whoever wants one Gymnasium environment; images are the observations, enlarged.

    Args:
        name: such as `procgen/fruitbot-easy`.
        max_episode_steps: truncate earlier than Procgen does.
        render_mode: `"rgb_array"` for images of 384 x 384 pixels; None: no images.
        **options: see `ProcgenPool`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self, name: str, max_episode_steps: int | None = None, render_mode: str | None = None, **options: Any
    ) -> None:
        require(render_mode in (None, "rgb_array"), "data.env.kwargs.render_mode", render_mode, "rgb_array, or nothing")
        self.render_mode = render_mode
        self._pool = ProcgenPool(EnvConfig(name, options, max_episode_steps=max_episode_steps), 1)
        self.max_episode_steps = self._pool.spec.max_episode_steps
        self.observation_space = gym.spaces.Box(0, 255, _SHAPE, np.uint8)
        self.action_space = gym.spaces.Discrete(_ACTIONS)
        self._seen = np.zeros(_SHAPE, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Observation [3, 64, 64] uint8, and the level's number as `level_seed`."""
        super().reset(seed=seed)
        (self._seen,) = self._pool.reset(None, [seed])
        return self._seen, {"level_seed": int(self._pool.level_seeds[0])}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Gymnasium's step."""
        step = self._pool.step(np.array([action]))
        (self._seen,) = step.observation
        return self._seen, step.reward.item(), step.terminated.item(), step.truncated.item(), {}

    def render(self) -> np.ndarray | None:
        """The image [384, 384, 3] uint8, None without a render mode."""
        if self.render_mode is None:
            return None
        return self._seen.transpose(1, 2, 0).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)

    def close(self) -> None:
        """Ends the game."""
        self._pool.close()


def _task(name: str) -> str:
    """envpool's name of the game."""
    require(name in names(), "data.env.name", name, f"one of Procgen's games{did_you_mean(name, names())}")
    game, _, mode = name.partition("/")[2].rpartition("-")
    return f"{game.capitalize()}{mode.capitalize()}-v0"


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    known = [*_COUNTS, *_SWITCHES]
    for option, value in given.items():
        name = f"data.env.kwargs.{option}"
        if option in _COUNTS:
            good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
            require(good, name, value, "an integer >= 0")
        else:
            require(option in known, name, value, f"one of {', '.join(known)}{did_you_mean(option, known)}")
            require(isinstance(value, bool), name, value, "true or false")
    return {**_COUNTS, **_SWITCHES, **given}


def _remedy(error: ImportError) -> str:
    if "Qt" in str(error):
        return "its system library Qt 5 is missing (Debian and Ubuntu: apt install libqt5gui5)"
    return "pip install 'lit-mbrl[procgen]', and its system library Qt 5 (Debian and Ubuntu: apt install libqt5gui5)"
