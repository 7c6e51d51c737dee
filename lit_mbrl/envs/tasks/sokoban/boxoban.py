"""Levels from text files as those of Boxoban (Guez et al. 2018), 10 x 10 with four boxes.

Levels follow each other, each below a line `; 17` with its number: `#` is wall, `@` the player, `$` a box, `.` a
target, ` ` floor. Two more characters, of other collections of Sokoban, are read: `*`, a box on a target, and `+`, the
player on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lit_mbrl.envs.tasks.sokoban.rules import problem

_CHARACTERS = {"#": 0, " ": 1, ".": 2, "*": 3, "$": 4, "@": 5, "+": 6}


def parse(text: str, source: str = "level") -> np.ndarray:
    """Returns the levels of a text, codes `[N, h, w]` uint8.

    Raises:
        ValueError: if a character is unknown, a level is none, or they differ in size.
    """
    levels: list[np.ndarray] = []
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith(";") or not line.strip():
            blocks.append([])
        else:
            blocks[-1].append(line)
    for lines in filter(None, blocks):
        name = f"{source}, level {len(levels) + 1}"
        width = max(map(len, lines))
        unknown = sorted(set("".join(lines)) - set(_CHARACTERS))
        if unknown:
            raise ValueError(f"{name}: {unknown[0]!r} is none of {''.join(_CHARACTERS)!r}")
        board = np.array([[_CHARACTERS[each] for each in line.ljust(width, "#")] for line in lines], np.uint8)
        if wrong := problem(board):
            raise ValueError(f"{name}: {wrong}")
        if levels and board.shape != levels[0].shape:
            raise ValueError(f"{name} is {_size(board)}, the first one {_size(levels[0])}")
        levels.append(board)
    if not levels:
        raise ValueError(f"{source}: no level in it")
    return np.stack(levels)


def read(paths: Sequence[str]) -> np.ndarray:
    """Returns all levels of these files, of folders those of every `.txt` file in them, codes `[N, h, w]`.

    Raises:
        OSError: if a file cannot be read.
        ValueError: as `parse`; or if there is none.
    """
    files = [file for path in map(Path, paths) for file in (sorted(path.rglob("*.txt")) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"files={list(paths)} hold no .txt file")
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in files)
    return _read(stamps)


@lru_cache(maxsize=8)
def _read(stamps: tuple[tuple[str, int], ...]) -> np.ndarray:
    parts = [parse(Path(name).read_text(encoding="utf-8"), name) for name, _ in stamps]
    for part, (name, _) in zip(parts, stamps, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(f"{name}: its levels are {_size(part[0])}, those of {stamps[0][0]} {_size(parts[0][0])}")
    levels = np.concatenate(parts)
    levels.setflags(write=False)
    return levels


def text(board: np.ndarray) -> str:
    """Returns a board `[h, w]` of codes in these characters, a line per row."""
    characters = "".join(_CHARACTERS)
    return "\n".join("".join(characters[code] for code in row) for row in board)


def _size(board: np.ndarray) -> str:
    return " x ".join(map(str, board.shape))
