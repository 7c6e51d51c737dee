"""Sokoban's rules for many boards at once, in numpy.

A board is `[h, w]` uint8 with one code per cell: `WALL`, `FLOOR`, `TARGET`, `BOX_ON_TARGET`, `BOX`, `PLAYER`,
`PLAYER_ON_TARGET`. Its border is wall, so that nobody looks past it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WALL, FLOOR, TARGET, BOX_ON_TARGET, BOX, PLAYER, PLAYER_ON_TARGET = range(7)
CODES = 7
ACTIONS = ("noop", "up", "down", "left", "right")
REWARDS = np.array([-0.1, 0.9, -1.1, 10.9], np.float32)
"""All rewards there are: of a step, with a box more on a target, with one fewer, with the last one on its target."""

_ON_TARGET = np.array([code in (TARGET, BOX_ON_TARGET, PLAYER_ON_TARGET) for code in range(CODES)])
_FREE = np.array([code in (FLOOR, TARGET) for code in range(CODES)])
_IS_BOX = np.array([code in (BOX_ON_TARGET, BOX) for code in range(CODES)])
_WITH_PLAYER = np.where(_ON_TARGET, PLAYER_ON_TARGET, PLAYER).astype(np.uint8)
_WITH_BOX = np.where(_ON_TARGET, BOX_ON_TARGET, BOX).astype(np.uint8)
_EMPTY = np.where(_ON_TARGET, TARGET, FLOOR).astype(np.uint8)


class Outcome(NamedTuple):
    """One step of N boards: rewards `[N]` float32 and whether all boxes are on targets `[N]`."""

    reward: np.ndarray
    solved: np.ndarray


class Boards:
    """N boards of one size, moved together.

    Args:
        count: N.
        height: h.
        width: w.

    Attributes:
        cells: codes `[N, h w]` uint8.
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        self.cells = np.zeros((count, height * width), np.uint8)
        self._player = np.zeros(count, np.int64)
        self._left = np.zeros(count, np.int64)  # boxes that are on no target
        self._shape = height, width
        self._moves = np.array([0, -width, width, -1, 1])
        self._rows = np.arange(count)

    @property
    def boards(self) -> np.ndarray:
        """Codes `[N, h, w]`, the boards themselves and no copy."""
        return self.cells.reshape(-1, *self._shape)

    def put(self, row: int, board: np.ndarray) -> None:
        """Sets up a board `[h, w]`."""
        cells = board.reshape(-1)
        self.cells[row] = cells
        (self._player[row],) = np.flatnonzero((cells == PLAYER) | (cells == PLAYER_ON_TARGET))
        self._left[row] = np.count_nonzero(cells == BOX)

    def step(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Outcome:
        """Moves the players, and what they push.

        Args:
            actions: `[N]` integers in 0..4, positions in `ACTIONS`.
            rows: which boards, as indices; None: all. The outcome has rows for these alone.
        """
        rows = self._rows if rows is None else rows
        move, player, cells = self._moves[actions], self._player[rows], self.cells
        ahead = player + move
        # Behind what is ahead; behind a wall there may be nothing, and what is read there is not used.
        beyond = np.minimum(np.maximum(ahead + move, 0), cells.shape[1] - 1)
        code_ahead, code_beyond = cells[rows, ahead], cells[rows, beyond]
        pushes = _IS_BOX[code_ahead] & _FREE[code_beyond] & (move != 0)
        moves = pushes | (_FREE[code_ahead] & (move != 0))
        before = cells[rows, player]
        cells[rows, player] = np.where(moves, _EMPTY[before], before)
        cells[rows, ahead] = np.where(moves, _WITH_PLAYER[code_ahead], cells[rows, ahead])
        cells[rows, beyond] = np.where(pushes, _WITH_BOX[code_beyond], cells[rows, beyond])
        self._player[rows] = np.where(moves, ahead, player)
        on = (pushes & (code_beyond == TARGET)).astype(np.int64)
        gained = on - (pushes & (code_ahead == BOX_ON_TARGET))
        self._left[rows] -= gained
        solved = self._left[rows] == 0
        kind = np.where(solved, 3, np.where(gained > 0, 1, np.where(gained < 0, 2, 0)))
        return Outcome(REWARDS[kind], solved)


def problem(board: np.ndarray) -> str | None:
    """Returns what keeps a board `[h, w]` from being a level, None if nothing does."""
    count = {code: int((board == code).sum()) for code in range(CODES)}
    players = count[PLAYER] + count[PLAYER_ON_TARGET]
    boxes = count[BOX] + count[BOX_ON_TARGET]
    targets = count[TARGET] + count[BOX_ON_TARGET] + count[PLAYER_ON_TARGET]
    border = np.concatenate([board[0], board[-1], board[:, 0], board[:, -1]])
    if (border != WALL).any():
        return "its border is not all wall"
    if players != 1:
        return f"it has {players} players"
    if boxes != targets:
        return f"it has {boxes} boxes and {targets} targets"
    return None if count[BOX] else "no box is left to push"
