"""Images of Sokoban's boards: one pixel or 8 x 8 for each cell, or a plane for each kind of cell."""

from __future__ import annotations

import numpy as np

from lit_mbrl.envs.tasks.sokoban.rules import CODES, FLOOR, TARGET

COLORS = np.array(
    [
        (0, 0, 0),  # wall
        (243, 248, 238),  # floor
        (254, 126, 125),  # target
        (254, 95, 56),  # box on target
        (142, 121, 56),  # box
        (160, 212, 56),  # player
        (219, 212, 56),  # player on target
    ],
    np.uint8,
)
"""Colour of each code in an image with one pixel per cell, `[7, 3]`."""
VIEWS = ("rgb", "symbolic", "large")
TILE = 8
_SPRITES = {
    "wall": ("11121112", "22222222", "12111211", "22222222", "11121112", "22222222", "12111211", "22222222"),
    "target": ("........", "...33...", "..3333..", ".33..33.", ".33..33.", "..3333..", "...33...", "........"),
    "box": (".444444.", "45555554", "45455454", "45544554", "45544554", "45455454", "45555554", ".444444."),
    "player": ("..6666..", "..6776..", "...66...", ".888888.", "..8888..", "..8888..", "..9..9..", ".99..99."),
}
_INKS = {
    "1": (120, 116, 110),
    "2": (84, 80, 76),
    "3": (222, 74, 74),
    "4": (96, 64, 24),
    "5": (190, 140, 68),
    "6": (240, 200, 160),
    "7": (40, 40, 40),
    "8": (60, 140, 60),
    "9": (50, 60, 120),
}


def shape(view: str, height: int, width: int) -> tuple[int, int, int]:
    """Returns the shape `[C, H, W]` of a view of boards of `[height, width]` cells."""
    if view == "symbolic":
        return CODES, height, width
    size = TILE if view == "large" else 1
    return 3, height * size, width * size


def draw(boards: np.ndarray, view: str) -> np.ndarray:
    """Draws boards `[N, h, w]`: `[N, C, H, W]` uint8.

    Args:
        boards: codes.
        view: `"rgb"`, one pixel per cell in `COLORS`; `"symbolic"`, a plane per code, 255 where a cell is of that
            code and 0 elsewhere; `"large"`, 8 x 8 pixels per cell.
    """
    if view == "symbolic":
        return _PLANES[boards].transpose(0, 3, 1, 2).copy()
    if view == "rgb":
        return np.stack([plane[boards] for plane in _CHANNELS], 1)
    n, height, width = boards.shape
    tiles = _TILES[boards]  # [N, h, w, 3, 8, 8]
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(n, 3, height * TILE, width * TILE)


def _tiles() -> np.ndarray:
    """Tiles `[7, 3, 8, 8]` of all codes."""
    tiles = np.empty((CODES, TILE, TILE, 3), np.uint8)
    tiles[:] = COLORS[FLOOR]
    # Box on target: the box in the colour that says so; player on target: the target shows around the player.
    layers = (["wall"], [], ["target"], ["box"], ["box"], ["player"], ["target", "player"])
    for code, names in enumerate(layers):
        for name in names:
            for i, line in enumerate(_SPRITES[name]):
                for j, ink in enumerate(line):
                    if ink != ".":
                        tiles[code, i, j] = _INKS[ink]
    on_target = (tiles[3] == _INKS["5"]).all(-1)
    tiles[3][on_target] = COLORS[3]
    tiles[3][(tiles[3] == COLORS[FLOOR]).all(-1)] = COLORS[TARGET]
    return tiles.transpose(0, 3, 1, 2).copy()


_CHANNELS = COLORS.T.copy()
_PLANES = np.eye(CODES, dtype=np.uint8) * np.uint8(255)
_TILES = _tiles()
