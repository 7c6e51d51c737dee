"""Sokoban's rules against levels solved by hand, plain Python and exhaustive search; games and their states."""

from __future__ import annotations

import pickle
import time
from collections import deque
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_mbrl.envs import EnvConfig, PixelConfig, VectorEnv, describe, make_gym
from lit_mbrl.envs.local_pool import LocalPool
from lit_mbrl.envs.tasks.sokoban import NAME, boxoban, levels
from lit_mbrl.envs.tasks.sokoban.images import COLORS, draw
from lit_mbrl.envs.tasks.sokoban.pool import SokobanPool, is_batched
from lit_mbrl.envs.tasks.sokoban.rules import REWARDS, Boards
from lit_mbrl.utils.errors import OptionError

LETTERS = "nudlr"  # an action each
SMALL = {"size": 5, "boxes": 1}


def play(level: str, moves: str) -> tuple[list[float], list[bool], str]:
    """Rewards, whether it is solved after each move, and the board at the end."""
    (board,) = boxoban.parse(level)
    boards = Boards(1, *board.shape)
    boards.put(0, board)
    outcomes = [boards.step(np.array([LETTERS.index(move)])) for move in moves]
    rewards = [round(float(outcome.reward[0]), 6) for outcome in outcomes]
    return rewards, [bool(outcome.solved[0]) for outcome in outcomes], boxoban.text(boards.boards[0])


def plain_step(text: str, action: int) -> tuple[str, float, bool]:
    """One step in plain Python, on text: what the rules say, once more and in other words."""
    rows = [list(line) for line in text.split("\n")]
    row, column = next((i, j) for i, line in enumerate(rows) for j, cell in enumerate(line) if cell in "@+")
    down, right = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))[action]
    if action == 0:
        return text, -0.1, "$" not in text
    near, far = (row + down, column + right), (row + 2 * down, column + 2 * right)
    before = text.count("*")
    if rows[near[0]][near[1]] in "$*":
        if rows[far[0]][far[1]] not in " .":
            return text, -0.1, "$" not in text
        rows[far[0]][far[1]] = "*" if rows[far[0]][far[1]] == "." else "$"
        rows[near[0]][near[1]] = "." if rows[near[0]][near[1]] == "*" else " "
    if rows[near[0]][near[1]] in " .":
        rows[near[0]][near[1]] = "+" if rows[near[0]][near[1]] == "." else "@"
        rows[row][column] = "." if rows[row][column] == "+" else " "
    after = "\n".join("".join(line) for line in rows)
    solved = "$" not in after
    return after, -0.1 + after.count("*") - before + 10 * solved, solved


def reachable(text: str, by_rules: bool) -> dict[str, int]:
    """Fewest moves to every board that can come of this one, by breadth-first search; solved boards are ends."""
    queue, seen = deque([text]), {text: 0}
    boards = Boards(4, *boxoban.parse(text)[0].shape)
    while queue:
        here = queue.popleft()
        if "$" not in here:
            continue
        if by_rules:
            board = np.array([["# .*$@+".index(cell) for cell in line] for line in here.split("\n")], np.uint8)
            for i in range(4):
                boards.put(i, board)
            boards.step(np.arange(1, 5))
            following = [boxoban.text(each) for each in boards.boards]
        else:
            following = [plain_step(here, action)[0] for action in range(1, 5)]
        for each in following:
            if each not in seen:
                seen[each] = seen[here] + 1
                queue.append(each)
    return seen


def test_a_level_solved_by_hand() -> None:
    level = "#######\n#@ $ .#\n#     #\n# $.  #\n#######"
    rewards, solved, end = play(level, "rrrdllldr")
    assert rewards == [-0.1, -0.1, 0.9, -0.1, -0.1, -0.1, -0.1, -0.1, 10.9]
    assert solved == [False] * 8 + [True]
    assert end == "#######\n#    *#\n#     #\n# @*  #\n#######"


def test_boxes_do_not_move_into_walls_or_boxes_and_can_be_pushed_off_a_target() -> None:
    level = "########\n#@$$ ..#\n# $#   #\n#.     #\n########"
    rewards, solved, end = play(level, "rdnl")
    assert (rewards, any(solved)) == ([-0.1] * 4, False)
    assert end == "########\n# $$ ..#\n#@$#   #\n#.     #\n########"
    rewards, _, end = play("######\n#@*  #\n# $ .#\n######", "rrr")
    assert rewards == [-1.1, -0.1, -0.1]
    assert end == "######\n# .@$#\n# $ .#\n######"
    # From one target onto the next nothing changes.
    rewards, _, end = play("######\n#@*.$#\n######", "rn")
    assert (rewards, end) == ([-0.1, -0.1], "######\n# +*$#\n######")


def test_rewards_are_those_of_a_table() -> None:
    assert REWARDS.tolist() == np.array([-0.1, 0.9, -1.1, 10.9], np.float32).tolist()
    pool = SokobanPool(EnvConfig(NAME, {"size": 6, "boxes": 2, "num_levels": 200}, num_envs=64), 64)
    rng, seen = np.random.default_rng(0), set()
    pool.reset(None, range(64))
    for _ in range(400):
        step = pool.step(rng.integers(5, size=64))
        seen |= set(step.reward[:, 0].tolist())
        pool.reset(step.terminated[:, 0], [None] * 64)
    assert seen == set(REWARDS.tolist())


@pytest.mark.parametrize(("size", "boxes"), [(5, 1), (7, 3), ([5, 9], 2)])
def test_many_boards_move_as_plain_python_says(size, boxes) -> None:
    height, width = size if isinstance(size, list) else (size, size)
    boards, count = Boards(50, height, width), 50
    texts = []
    for i in range(count):
        board = levels.level(height, width, boxes, "train", 3 * i)
        boards.put(i, board)
        texts.append(boxoban.text(board))
    rng = np.random.default_rng(1)
    for step in range(200):
        actions = rng.integers(5, size=count)
        rows = np.flatnonzero(rng.random(count) < 0.8) if step % 2 else np.arange(count)
        outcome = boards.step(actions[rows], rows if step % 2 else None)
        for i, row in enumerate(rows):
            texts[row], reward, solved = plain_step(texts[row], actions[row])
            assert float(outcome.reward[i]) == pytest.approx(reward, abs=1e-6) or solved
            assert bool(outcome.solved[i]) == solved
        assert [boxoban.text(board) for board in boards.boards] == texts


@pytest.mark.parametrize("boxes", [1, 2])
@pytest.mark.parametrize("split", levels.SPLITS)
def test_exhaustive_search_solves_every_small_level(boxes: int, split: str) -> None:
    for text in sorted({boxoban.text(board) for board in levels.chunk(5, 5, boxes, split, 0)})[:40]:
        found = reachable(text, by_rules=True)
        assert found == reachable(text, by_rules=False)
        assert any("$" not in board for board in found)


def test_exhaustive_search_knows_the_fewest_moves_and_levels_that_nobody_can_solve() -> None:
    found = reachable("#####\n#@  #\n# $ #\n#  .#\n#####", by_rules=True)
    assert min(moves for board, moves in found.items() if "$" not in board) == 5
    stuck = reachable("#####\n#$  #\n# @ #\n#  .#\n#####", by_rules=True)
    assert len(stuck) == 8 and all("$" in board for board in stuck)  # the box stands in a corner


def test_one_game_is_what_gymnasium_asks_for() -> None:
    env = gym.make(NAME, render_mode="rgb_array", **SMALL)
    check_env(env.unwrapped, skip_render_check=False)
    image, info = env.reset(seed=3)
    assert (image.shape, image.dtype, info["level"] >= 0) == ((3, 5, 5), np.uint8, True)
    assert env.render().shape == (160, 160, 3)
    steps, truncated = 0, False
    while not truncated:
        _, reward, terminated, truncated, info = env.step(0)
        steps += 1
        assert (reward, terminated, info) == (pytest.approx(-0.1), False, {"is_success": False})
    assert steps == 120


def test_images_show_the_board() -> None:
    (board,) = boxoban.parse("#######\n#@ $.*#\n#######")
    (tiny,), (planes,), (large,) = (draw(board[None], view) for view in ("rgb", "symbolic", "large"))
    assert np.array_equal(tiny.transpose(1, 2, 0), COLORS[board])
    assert planes.shape == (7, 3, 7) and set(np.unique(planes)) == {0, 255}
    assert np.array_equal(planes.argmax(0), board)
    assert large.shape == (3, 24, 56)
    tiles = {large[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].tobytes() for i in range(3) for j in range(7)}
    assert len(tiles) == len(np.unique(board)) == 6  # each kind of cell has an image of its own


@pytest.mark.parametrize("kwargs", [SMALL, {"size": [5, 8], "boxes": 2, "num_levels": 50, "observation": "symbolic"}])
def test_many_games_together_are_the_same_as_one_by_one(kwargs) -> None:
    config = EnvConfig(NAME, kwargs, num_envs=5, max_episode_steps=17)
    together, single = SokobanPool(config, 5), LocalPool(config, 5)
    assert together.spec == single.spec
    assert np.array_equal(together.reset(None, [4, 5, 6, 7, 8]), single.reset(None, [4, 5, 6, 7, 8]))
    rng = np.random.default_rng(0)
    for step in range(150):
        actions, mask = rng.integers(5, size=5), rng.random(5) < 0.7 if step % 3 == 0 else None
        ours, theirs = together.step(actions, mask), single.step(actions, mask)
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
        assert together.episode_steps() == single.episode_steps()
        over = (ours.terminated | ours.truncated)[:, 0]
        if step == 70:
            over, seeds = np.ones(5, np.bool_), [9, None, None, 2, 1]
        else:
            seeds = [None] * 5
        assert np.array_equal(together.reset(over, seeds), single.reset(over, seeds))
        assert repr(together.get_state()) == repr(single.get_state())


@pytest.mark.parametrize("saved_by", [SokobanPool, LocalPool])
@pytest.mark.parametrize("resumed_by", [SokobanPool, LocalPool])
@pytest.mark.parametrize("kwargs", [SMALL, {"size": 6, "boxes": 2, "num_levels": 9, "levels": "test"}])
def test_games_go_on_bit_for_bit(saved_by, resumed_by, kwargs) -> None:
    config = EnvConfig(NAME, kwargs, num_envs=3, max_episode_steps=11)
    rng = np.random.default_rng(5)
    actions = rng.integers(5, size=(120, 3))

    def advance(pool, some) -> list[np.ndarray]:
        seen = []
        for action in some:
            step = pool.step(action)
            seen += [*step, pool.reset((step.terminated | step.truncated)[:, 0], [None] * 3)]
        return seen

    first = saved_by(config, 3)
    first.reset(None, [1, 2, 3])
    advance(first, actions[:37])
    blob = pickle.dumps(first.get_state())
    expected = advance(first, actions[37:])
    other = resumed_by(config, 3)
    other.reset(None, [7, 7, 7])
    other.set_state(pickle.loads(blob))
    for a, b in zip(advance(other, actions[37:]), expected, strict=True):
        assert np.array_equal(a, b)


def test_vector_env_steps_plain_games_together() -> None:
    env = VectorEnv(EnvConfig(NAME, SMALL, num_envs=4), seed=0)
    assert isinstance(env._pool, SokobanPool)
    assert env.reset()["observation"].shape == (4, 3, 5, 5)
    assert (env._pool.spec.discrete, env._pool.spec.action_dim, env._pool.spec.max_episode_steps) == (True, 5, 120)
    for other in ({"workers": True}, {"action_repeat": 2}, {"pixels": PixelConfig(size=16)}):
        assert not is_batched(EnvConfig(NAME, SMALL, **other))
    repeated = VectorEnv(EnvConfig(NAME, SMALL, num_envs=2, action_repeat=2), seed=0)
    assert isinstance(repeated._pool, LocalPool)


def test_make_vec_is_many_single_games() -> None:
    ours = gym.make_vec(NAME, num_envs=3, max_episode_steps=9, **SMALL)
    theirs = gym.make_vec(NAME, num_envs=3, vectorization_mode="sync", max_episode_steps=9, **SMALL)
    assert ours.single_observation_space == theirs.single_observation_space
    assert np.array_equal(ours.reset(seed=2)[0], theirs.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = rng.integers(5, size=3)
        for a, b in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
            assert np.allclose(a, b, atol=1e-6)
    ours.close()
    theirs.close()


def test_tens_of_thousands_of_steps_per_second() -> None:
    pool = SokobanPool(EnvConfig(NAME, {"num_levels": 200}, num_envs=64), 64)
    pool.reset(None, range(64))
    actions = np.random.default_rng(0).integers(5, size=(300, 64))
    begun = time.process_time()
    for action in actions:
        step = pool.step(action)
        pool.reset((step.terminated | step.truncated)[:, 0], [None] * 64)
    assert actions.size / (time.process_time() - begun) > 50_000  # 400 000 on a core of 2020


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"size": 4}, "size=4 is not an integer from 5 to 50"),
        ({"size": [5]}, "size="),
        ({"boxes": 0}, "boxes=0 is not an integer > 0"),
        ({"size": 5, "boxes": 9}, "boxes=9 is more than rooms of 5 x 5"),
        ({"levels": "validation"}, "levels='validation' is not train, test or null"),
        ({"num_levels": -1}, "num_levels=-1"),
        ({"observation": "big"}, "observation='big' is not one of rgb, symbolic, large"),
        ({"files": "nowhere.txt"}, "nowhere.txt"),
        ({"files": "nowhere.txt", "size": 7}, "left out"),
        ({"files": []}, "files="),
        ({"walls": 3}, "walls"),
    ],
)
def test_wrong_options_are_told(kwargs, told) -> None:
    with pytest.raises(OptionError, match=r"data\.env\.kwargs") as error:
        make_gym(NAME, **kwargs)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_levels_of_files_are_played(tmp_path: Path) -> None:
    texts = [boxoban.text(levels.level(6, 6, 2, split, i)) for split in levels.SPLITS for i in range(20)]
    (tmp_path / "000.txt").write_text("\n\n".join(f"; {i}\n{text}" for i, text in enumerate(texts)))
    played: dict[str | None, set[str]] = {}
    for split in (None, *levels.SPLITS):
        env = gym.make(NAME, files=str(tmp_path), levels=split).unwrapped
        played[split] = set()
        for seed in range(300):
            env.reset(seed=seed)
            played[split].add(boxoban.text(env.games.boards[0]))
    assert played[None] == set(texts)
    assert (played["train"], played["test"]) == (set(texts[:20]), set(texts[20:]))
    assert describe(EnvConfig(NAME, {"files": [str(tmp_path / "000.txt")]})).observation_shape == (3, 6, 6)
