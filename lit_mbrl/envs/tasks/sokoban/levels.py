"""Sokoban levels by reverse play, as Weber et al. 2017 (arXiv 1707.06203, appendix) describe theirs.

1. Room: a walk of `int(1.7 (h + w))` steps, whose direction changes with probability 0.35, over a board full of walls;
   at each step one of five shapes of three or four cells around it becomes floor.
2. The player and the targets are put on random cells of the floor, and a box on each target.
3. The level is played backwards at random: the player steps, and may pull the box behind it along.
4. Of all boards on the way the one is kept in which no box is on a target and the score is highest: the number of
   changes of the box that was pulled times the sum of the boxes' distances (Manhattan) to the targets they came from. A
   room without one is thrown away. So every level can be solved, by the same moves forwards.

Departure: the paper searches backwards in depth, for up to a million boards; here `10 h w` random moves are played, in
hundreds of rooms at once, 0.2 ms a level of 5 x 5 cells and 1 ms of 10 x 10.

Levels are numbered, and a number's level depends on size, number of boxes and split alone. A level belongs to the split
`"test"` if a digest of its walls and targets, the same for a mirrored or turned board, says so (one in five), else to
`"train"`: no board of one split has the walls and targets of any of the other's, from whatever seed or file it is.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from lit_mbrl.envs.tasks.sokoban.rules import (
    BOX,
    BOX_ON_TARGET,
    FLOOR,
    PLAYER,
    PLAYER_ON_TARGET,
    TARGET,
    WALL,
)

SPLITS = ("train", "test")
CHUNK = 128  # levels that are made together
CHUNKS = 2**31
_TEST_SHARE = 5  # one in so many
_TURN = 0.35
_ROOMS = 1024  # at a time
_FUTILE = 50_000  # rooms after which to give up, if hardly any was of use
_STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
_SHAPES = (  # cells around the walker
    ((0, -1), (0, 0), (0, 1)),
    ((-1, 0), (0, 0), (1, 0)),
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((0, -1), (0, 0), (1, 0)),
    ((-1, 0), (0, 0), (0, 1)),
)


def split_of(board: np.ndarray) -> str:
    """Returns the split that a board `[h, w]` of codes belongs to: see above."""
    wall = board == WALL
    target = (board == TARGET) | (board == BOX_ON_TARGET) | (board == PLAYER_ON_TARGET)
    ground = np.where(wall, 0, np.where(target, 2, 1)).astype(np.uint8)
    return _splits(ground.reshape(1, -1), *board.shape)[0]


def _splits(grounds: np.ndarray, height: int, width: int) -> list[str]:
    """Splits of boards `[N, h w]` with 0 for a wall, 1 for floor and 2 for a target."""
    names = []
    for sides in grounds[:, _symmetries(height, width)]:
        # The shape is in the digest, or boards of other sizes with the same cells would be one.
        canonical = min(each.tobytes() for each in sides)
        digest = hashlib.blake2b(canonical, digest_size=8, salt=bytes(sorted((height, width)))).digest()
        names.append("test" if int.from_bytes(digest) % _TEST_SHARE == 0 else "train")
    return names


@lru_cache
def _symmetries(height: int, width: int) -> np.ndarray:
    """Positions `[8, h w]` of the cells in the eight mirrored and turned boards; the lower side comes first."""
    cells = np.arange(height * width).reshape(height, width)
    flat = cells if height <= width else cells.T
    sides = [flat, flat[::-1], flat[:, ::-1], flat[::-1, ::-1]]
    turned = [side.T for side in sides] if height == width else sides
    return np.stack([side.reshape(-1) for side in sides + turned])


@lru_cache(maxsize=4096)
def chunk(height: int, width: int, boxes: int, split: str, number: int) -> np.ndarray:
    """Levels `CHUNK number` to `CHUNK (number + 1) - 1` of a split, codes `[CHUNK, h, w]` uint8, not to be written to.

    Raises:
        ValueError: if hardly any room of that size has place for so many boxes.
    """
    seed = (height, width, boxes, SPLITS.index(split), number)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    found: list[np.ndarray] = []
    count, tried = 0, 0
    while count < CHUNK:
        if tried >= _FUTILE and count < tried // 1000:
            raise ValueError(f"boxes={boxes} is more than rooms of {height} x {width} cells have place for")
        starts = _starts(rng, height, width, boxes, split)
        if len(starts[0]):
            found.append(_play_backwards(rng, *starts, (height, width)))
            count += len(found[-1])
        tried += _ROOMS
    levels = np.concatenate(found)[:CHUNK]
    levels.setflags(write=False)
    return levels


def level(height: int, width: int, boxes: int, split: str, number: int) -> np.ndarray:
    """Returns level `number` of a split, codes `[h, w]`: see `chunk`."""
    return chunk(height, width, boxes, split, number // CHUNK)[number % CHUNK]


def _starts(
    rng: np.random.Generator, height: int, width: int, boxes: int, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of `_ROOMS` rooms that are of a split and may give a level.

    Returns:
        Floor `[M, h w]`, and cells of the player `[M]` and of the targets `[M, boxes]`.
    """
    floor = _rooms(rng, _ROOMS, height, width).reshape(_ROOMS, -1)
    keys = np.where(floor, rng.random(floor.shape), -1.0)
    chosen = np.argsort(-keys, 1)[:, : boxes + 1]
    player, targets = chosen[:, 0], chosen[:, 1:]
    # A box can leave a target if the two cells next to it in one direction are free at some time.
    leaves = np.zeros(targets.shape, np.bool_)
    rows = np.arange(_ROOMS)[:, None]
    for move in (-width, width, -1, 1):
        near, far = targets + move, np.clip(targets + 2 * move, 0, height * width - 1)
        leaves |= floor[rows, np.clip(near, 0, height * width - 1)] & floor[rows, far]
    some = np.flatnonzero((floor.sum(1) > boxes + 1) & leaves.all(1))
    ground = floor[some].astype(np.uint8)
    np.put_along_axis(ground, targets[some], np.uint8(2), 1)
    some = some[[name == split for name in _splits(ground, height, width)]]
    return floor[some], player[some], targets[some]


def _rooms(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Rooms `[count, h, w]`, True where there is floor."""
    size, rows = np.array([height, width]), np.arange(count)
    floor = np.zeros((count, height, width), np.bool_)
    place = rng.integers(1, size - 1, (count, 2))
    direction = rng.integers(4, size=count)
    shapes = [np.array(shape) for shape in _SHAPES]
    for _ in range(int(1.7 * (height + width))):
        direction = np.where(rng.random(count) < _TURN, rng.integers(4, size=count), direction)
        place = np.clip(place + _STEPS[direction], 1, size - 2)
        kinds = rng.integers(len(shapes), size=count)
        for kind, shape in enumerate(shapes):
            some = rows[kinds == kind]
            cells = place[some, None] + shape
            floor[some[:, None], cells[..., 0], cells[..., 1]] = True
    floor[:, [0, -1]] = floor[:, :, [0, -1]] = False
    return floor


def _play_backwards(
    rng: np.random.Generator, floor: np.ndarray, player: np.ndarray, targets: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The best boards on the way, codes `[M, h, w]` of those rooms that had any.

    Args:
        rng: what is random.
        floor: `[N, h w]`.
        player: cell of the player, `[N]`.
        targets: cells of the targets, where the boxes are at first, `[N, boxes]`.
        size: h and w.
    """
    height, width = size
    (count, boxes), cells, steps = targets.shape, height * width, 10 * height * width
    moves = np.array([-width, width, -1, 1])[rng.integers(4, size=(steps, count))]
    pulls = rng.random((steps, count), np.float32) < 0.5
    # All cells of all rooms are one row, so that a single index finds them; a box is 1 + its position in `places`.
    first = cells * np.arange(count)
    where = targets + first[:, None]
    places, player = where.reshape(-1).copy(), player + first
    origin, own = places.copy(), np.arange(count * boxes).reshape(count, boxes)
    is_target, box_in = np.zeros(count * cells, np.int64), np.zeros(count * cells, np.int64)
    is_target[places] = 1
    box_in[places] = np.arange(len(places)) + 1
    free = floor.reshape(-1).copy()
    free[places] = False
    row, column = (np.tile(each, count) for each in np.divmod(np.arange(cells), width))
    on_target, distance, last = np.full(count, boxes), np.zeros(count, np.int64), np.zeros(count, np.int64)
    switches, best = np.zeros(count, np.int64), np.zeros(count, np.int64)
    best_player, best_places = player.copy(), where.copy()
    for move, pull in zip(moves, pulls, strict=True):
        ahead = player + move
        goes = free[ahead]
        box = box_in[player - move]
        some = np.flatnonzero(goes & pull & (box > 0))
        if len(some):
            old, box = player[some], box[some]
            behind, home = old - move[some], origin[box - 1]
            box_in[behind], free[behind] = 0, True
            box_in[old], free[old] = box, False
            places[box - 1] = old
            on_target[some] += is_target[old] - is_target[behind]
            distance[some] += abs(row[old] - row[home]) + abs(column[old] - column[home])
            distance[some] -= abs(row[behind] - row[home]) + abs(column[behind] - column[home])
            switches[some] += box != last[some]
            last[some] = box
            score = np.where(on_target[some] == 0, switches[some] * distance[some], 0)
            better = score > best[some]
            these = some[better]
            best[these], best_player[these] = score[better], ahead[these]
            best_places[these] = places[own[these]]
        player = np.where(goes, ahead, player)
    good = np.flatnonzero(best)
    start = first[good]
    cells_of = _boards(
        floor[good],
        is_target.reshape(count, cells)[good] > 0,
        best_player[good] - start,
        best_places[good] - start[:, None],
    )
    return cells_of.reshape(-1, height, width)


def _boards(floor: np.ndarray, is_target: np.ndarray, player: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Codes `[N, h w]`; no box is on a target."""
    cells = np.where(is_target, TARGET, np.where(floor, FLOOR, WALL)).astype(np.uint8)
    np.put_along_axis(cells, places, np.uint8(BOX), 1)
    rows = np.arange(len(cells))
    cells[rows, player] = np.where(is_target[rows, player], PLAYER_ON_TARGET, PLAYER)
    return cells
