"""Episodes of Sokoban in N boards at once: which level comes next, and what is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_mbrl.envs.tasks.sokoban import boxoban, images
from lit_mbrl.envs.tasks.sokoban.levels import CHUNK, CHUNKS, SPLITS, chunk, level, split_of
from lit_mbrl.envs.tasks.sokoban.rules import Boards, Outcome


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `Sokoban`, checked; see there.

    Raises:
        TypeError: if one is of another kind.
        ValueError: if one is out of its bounds.
    """

    size: int | Sequence[int] = 10
    boxes: int = 4
    levels: str | None = None
    num_levels: int = 0
    files: str | Sequence[str] | None = None
    observation: str = "rgb"

    def __post_init__(self) -> None:
        sides = list(self.size) if isinstance(self.size, list | tuple) else [self.size, self.size]
        good = len(sides) == 2 and all(_is_integer(side) and 5 <= side <= 50 for side in sides)
        _require(good, "size", self.size, "an integer from 5 to 50, or [rows, columns]")
        _require(_is_integer(self.boxes) and self.boxes > 0, "boxes", self.boxes, "an integer > 0")
        _require(self.levels in (None, *SPLITS), "levels", self.levels, f"{', '.join(SPLITS)} or null")
        good = _is_integer(self.num_levels) and self.num_levels >= 0
        _require(good, "num_levels", self.num_levels, "an integer >= 0")
        known = ", ".join(images.VIEWS)
        _require(self.observation in images.VIEWS, "observation", self.observation, f"one of {known}")
        if self.files is not None:
            default = self.size == 10 and self.boxes == 4
            _require(default, "size and boxes", (self.size, self.boxes), "left out: the files' levels have their own")
            files = [self.files] if isinstance(self.files, str) else list(self.files)
            good = len(files) > 0 and all(isinstance(file, str) for file in files)
            _require(good, "files", self.files, "a path or a list of paths")

    def source(self) -> Generated | Listed:
        """The levels to play."""
        if self.files is None:
            height, width = self.size if isinstance(self.size, list | tuple) else (self.size, self.size)
            return Generated(height, width, self.boxes, self.levels or "train", self.num_levels)
        found = boxoban.read([self.files] if isinstance(self.files, str) else list(self.files))
        if self.levels is not None:
            found = found[[split_of(board) == self.levels for board in found]]
        if self.num_levels:
            found = found[: self.num_levels]
        if not len(found):
            raise ValueError(f"levels={self.levels}: no level of {self.files} is one of these")
        return Listed(found)


class Listed:
    """Levels of files, drawn uniformly."""

    def __init__(self, levels: np.ndarray) -> None:
        self.shape = levels.shape[1:]
        self._levels = levels

    def draw(self, rng: np.random.Generator, number: int) -> int:
        """Returns the number of the next level after that with this one."""
        return int(rng.integers(len(self._levels)))

    def board(self, number: int) -> np.ndarray:
        """Returns a level, codes `[h, w]`."""
        return self._levels[number]


class Generated:
    """Levels of `levels.level`, a number of them or practically all there are.

    Args:
        height: h.
        width: w.
        boxes: in each.
        split: `"train"` or `"test"`.
        count: draws uniformly from the levels 0 to count - 1; 0: plays levels that follow each other, from a random
            one on, since those are made together.
    """

    def __init__(self, height: int, width: int, boxes: int, split: str, count: int) -> None:
        self.shape = height, width
        self._kind = height, width, boxes, split
        self._count = count
        chunk(*self._kind, 0)  # what does not fit is told when the environment is made

    def draw(self, rng: np.random.Generator, number: int) -> int:
        """Returns the number of the next level after that with this one, -1 for the first."""
        if self._count:
            return int(rng.integers(self._count))
        following = number + 1
        return following if following % CHUNK else CHUNK * int(rng.integers(CHUNKS))

    def board(self, number: int) -> np.ndarray:
        """Returns a level, codes `[h, w]`."""
        return level(*self._kind, number)


class Games:
    """N games with a generator of random numbers each.

    Args:
        settings: options.
        count: N.

    Attributes:
        generators: a numpy generator for each game, to be set before its first episode.
        numbers: of the running levels, `[N]` int64.
        steps: taken in the running episodes, `[N]`.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self._view, self._source = settings.observation, settings.source()
        self._boards = Boards(count, *self._source.shape)
        self.generators: list[np.random.Generator] = [np.random.default_rng(0)] * count
        self.numbers = np.full(count, -1, np.int64)
        self.steps = np.zeros(count, np.int64)

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """C, H and W."""
        return images.shape(self._view, *self._source.shape)

    @property
    def boards(self) -> np.ndarray:
        """Codes of the boards, `[N, h, w]`."""
        return self._boards.boards

    def seed(self, game: int, generator: np.random.Generator) -> None:
        """Gives a game other random numbers, which say from now on which levels it plays."""
        self.generators[game] = generator
        self.numbers[game] = -1

    def begin(self, game: int) -> None:
        """Starts the next episode of a game."""
        self.numbers[game] = self._source.draw(self.generators[game], int(self.numbers[game]))
        self._boards.put(game, self._source.board(int(self.numbers[game])))
        self.steps[game] = 0

    def step(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Outcome:
        """One step of all games, or of those with these indices: see `Boards.step`."""
        self.steps[slice(None) if rows is None else rows] += 1
        return self._boards.step(actions, rows)

    def observe(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns images `[n, C, H, W]` uint8 of all games, or of these."""
        return images.draw(self.boards[rows], self._view)

    def images(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns images `[n, 8 h, 8 w, 3]` uint8 for people to look at."""
        return images.draw(self.boards[rows], "large").transpose(0, 2, 3, 1)

    def state(self, game: int) -> dict[str, Any]:
        """Describes a game, without its random numbers."""
        return {
            "cells": self._boards.cells[game].copy(),
            "number": int(self.numbers[game]),
            "steps": int(self.steps[game]),
        }

    def set_state(self, game: int, state: dict[str, Any]) -> None:
        """Takes back what `state` returned."""
        self._boards.put(game, state["cells"])
        self.numbers[game], self.steps[game] = state["number"], state["steps"]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _require(good: bool, name: str, value: Any, expected: str) -> None:
    if not good:
        raise ValueError(f"{name}={value!r} is not {expected}" if "left out" not in expected else f"{name}: {expected}")
