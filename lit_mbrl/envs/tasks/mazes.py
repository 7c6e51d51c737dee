"""The mazes of Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, chapter 8.

| task | book | changes after | shortest path before, after the change |
|---|---|---|---|
| `maze/Dyna` | example 8.1 | never | 14 |
| `maze/Blocking` | example 8.2, figure 8.4 | 1000 steps | 10, 16 |
| `maze/Shortcut` | example 8.3, figure 8.5 | 3000 steps | 16, 10 |

The observation is one of 54 cells, `9 row + column` from the top left. The actions are up, down, left and right; one
that leads into a wall or out of the maze leaves the agent where it is. The reward is 1 on reaching the goal, which ends
the episode, and 0 elsewhere. Steps are counted from the environment's making on, over all of its episodes; a maze with
`change_step: 0` is as it is after the change from its first step on, and with null it never changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.spaces import Discrete


class _Task(NamedTuple):
    """Rows of cells (`#` wall, `S` start, `G` goal) before and after the change, and after how many steps it is."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    change_step: int | None


_DYNA = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)


def _barrier(wall: str) -> tuple[str, ...]:
    return ("........G", ".........", ".........", wall, ".........", "...S.....")


_RIGHT, _LEFT, _BOTH = "########.", ".########", ".#######."  # where the barrier is open
_ROWS = {
    "Dyna": _Task(_DYNA, _DYNA, None),
    "Blocking": _Task(_barrier(_RIGHT), _barrier(_LEFT), 1_000),
    "Shortcut": _Task(_barrier(_LEFT), _barrier(_BOTH), 3_000),
}
TASKS = tuple(_ROWS)
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Maze(gym.Env):
    """Walks through a maze that may change on the way.

    Args:
        before: rows of cells: `#` is a wall, `S` the start, `G` the goal.
        after: the same after the change.
        change_step: steps after which it changes; None: never.
    """

    def __init__(self, before: tuple[str, ...], after: tuple[str, ...], change_step: int | None) -> None:
        self._before, self._after, self._change_step = before, after, change_step
        self._columns = len(before[0])
        self.observation_space = Discrete(len(before) * self._columns)
        self.action_space = Discrete(len(_MOVES))
        self._steps, self._cell = 0, self._start

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows of cells as they are for the coming step."""
        changed = self._change_step is not None and self._steps >= self._change_step
        return self._after if changed else self._before

    @property
    def _start(self) -> int:
        return "".join(self._before).index("S")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """The start, and info."""
        super().reset(seed=seed)
        self._cell = self._start
        return self._cell, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """Gymnasium's step."""
        rows = self.rows
        down, right = _MOVES[action]
        row, column = self._cell // self._columns + down, self._cell % self._columns + right
        if 0 <= row < len(rows) and 0 <= column < self._columns and rows[row][column] != "#":
            self._cell = row * self._columns + column
        self._steps += 1
        at_goal = rows[self._cell // self._columns][self._cell % self._columns] == "G"
        return self._cell, float(at_goal), at_goal, False, {}

    def extra_state(self) -> dict[str, Any]:
        """Returns the cell and the number of steps."""
        return {"cell": self._cell, "steps": self._steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""
        self._cell, self._steps = state["cell"], state["steps"]


def make(task: str, max_episode_steps: int | None = None, **kwargs: Any) -> gym.Env:
    """One of `TASKS`.

    Args:
        task: a name in `TASKS`.
        max_episode_steps: truncates episodes, which have no limit in the book; None: it does not.
        **kwargs: `change_step`, in the place of the book's.

    Raises:
        TypeError: if an argument is unknown.
        ValueError: if `change_step` is no number of steps.
    """
    row = _ROWS[task]
    change_step = kwargs.pop("change_step", row.change_step)
    if kwargs:
        raise TypeError(f"maze/{task} takes change_step, not {', '.join(kwargs)}")
    if change_step is not None and (
        not isinstance(change_step, int) or isinstance(change_step, bool) or change_step < 0
    ):
        raise ValueError(f"change_step: an integer >= 0 or null, not {change_step!r}")
    if change_step is not None and row.change_step is None:
        raise ValueError(f"maze/{task} never changes: change_step is null")
    maze = Maze(row.before, row.after, change_step)
    return maze if max_episode_steps is None else gym.wrappers.TimeLimit(maze, max_episode_steps)
