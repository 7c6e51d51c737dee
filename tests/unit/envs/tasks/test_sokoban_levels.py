"""Sokoban's levels: numbers, splits that share nothing, and Boxoban's text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lit_mbrl.envs.tasks.sokoban import boxoban, levels
from lit_mbrl.envs.tasks.sokoban.rules import BOX, BOX_ON_TARGET, PLAYER_ON_TARGET, TARGET, WALL, problem


def ground(board: np.ndarray) -> np.ndarray:
    """Walls as 0, floor as 1, targets as 2."""
    target = (board == TARGET) | (board == BOX_ON_TARGET) | (board == PLAYER_ON_TARGET)
    return np.where(board == WALL, 0, np.where(target, 2, 1))


def likenesses(board: np.ndarray) -> set[tuple]:
    """Walls and targets of a board, mirrored and turned in all ways."""
    sides = [np.rot90(side, k) for side in (ground(board), ground(board).T) for k in range(4)]
    return {tuple(map(tuple, side.tolist())) for side in sides}


@pytest.mark.parametrize(("height", "width", "boxes"), [(5, 5, 1), (5, 5, 2), (7, 7, 2), (10, 10, 4), (6, 9, 3)])
@pytest.mark.parametrize("split", levels.SPLITS)
def test_levels_are_levels(height: int, width: int, boxes: int, split: str) -> None:
    boards = levels.chunk(height, width, boxes, split, 5)
    assert boards.shape == (levels.CHUNK, height, width) and not boards.flags.writeable
    for board in boards:
        assert problem(board) is None
        assert ((board == BOX).sum(), (board == BOX_ON_TARGET).sum()) == (boxes, 0)


@pytest.mark.parametrize(("size", "boxes"), [(5, 1), (5, 2), (7, 2)])
def test_splits_share_no_walls_and_targets(size: int, boxes: int) -> None:
    seen = {
        split: {
            like
            for number in range(4)
            for board in levels.chunk(size, size, boxes, split, number)
            for like in likenesses(board)
        }
        for split in levels.SPLITS
    }
    assert min(map(len, seen.values())) > 50
    assert seen["train"].isdisjoint(seen["test"])


def test_a_board_s_split_is_that_of_its_mirrored_and_turned_ones() -> None:
    names = set()
    for board in levels.chunk(7, 7, 2, "test", 0)[:20]:
        sides = [np.rot90(side, k) for side in (board, board.T) for k in range(4)]
        assert {levels.split_of(side) for side in sides} == {"test"}
        wide = np.concatenate([board, np.zeros((7, 3), np.uint8)], 1)
        assert len({levels.split_of(side) for side in (wide, wide.T, wide[::-1], wide[:, ::-1])}) == 1
        names.add(levels.split_of(wide))
    assert names == {"train", "test"}  # another board, of another size


def test_a_level_depends_on_its_number_alone() -> None:
    one = levels.level(7, 7, 2, "train", 300).copy()
    levels.chunk.cache_clear()
    assert np.array_equal(levels.level(7, 7, 2, "train", 300), one)
    some = {levels.level(7, 7, 2, "train", number).tobytes() for number in range(280, 320)}
    assert len(some) > 35


def test_hard_levels_are_preferred() -> None:
    """Boxes are as far from targets as reverse play gets them: on average more than a single push."""
    pushes = []
    for board in levels.chunk(10, 10, 4, "train", 0)[:50]:
        boxes, targets = (np.argwhere(board == code) for code in (BOX, TARGET))
        if len(targets) == 4:
            pushes.append(abs(boxes[:, None] - targets[None]).sum(-1).min(1).sum())
    assert np.mean(pushes) > 4.5


LEVELS = """; 0
#####
#@$.#
#####

; 1
#####
#+$ #
#####
"""


def test_text_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LEVELS)
    boards = boxoban.read([str(tmp_path)])
    assert boards.tolist() == [
        [[0] * 5, [0, 5, 4, 2, 0], [0] * 5],
        [[0] * 5, [0, 6, 4, 1, 0], [0] * 5],
    ]
    assert boxoban.text(boards[0]) == "#####\n#@$.#\n#####"
    (tmp_path / "b.txt").write_text(LEVELS)
    assert len(boxoban.read([str(tmp_path)])) == 4
    assert len(boxoban.read([str(tmp_path / "b.txt")])) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no level"),
        ("#####\n#@$x#\n#####", "level 1: 'x' is none of"),
        ("#####\n# $.#\n#####", "0 players"),
        ("#####\n#@$ #\n#####", "1 boxes and 0 targets"),
        ("#####\n#@* #\n#####", "no box is left"),
        ("#####\n#@$.\n#### ", "border"),
        (LEVELS + "\n######\n#@ $.#\n######", "level 3 is 3 x 6, the first one 3 x 5"),
    ],
)
def test_what_is_no_level_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        boxoban.parse(text)


def test_files_without_levels_of_one_size_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.txt file"):
        boxoban.read([str(tmp_path)])
    (tmp_path / "a.txt").write_text(LEVELS)
    (tmp_path / "b.txt").write_text("######\n#@ $.#\n######")
    with pytest.raises(ValueError, match="3 x 6"):
        boxoban.read([str(tmp_path)])
