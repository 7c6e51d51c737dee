"""The mazes of Sutton and Barto's chapter 8: shortest paths before and after the change, and walls."""

from __future__ import annotations

from collections import deque

import pytest

from lit_mbrl.envs import EnvConfig, describe, make_gym
from lit_mbrl.envs.tasks import mazes
from lit_mbrl.utils.errors import OptionError


def shortest(task: str, **kwargs: int) -> int:
    """Steps from the start to the goal, by breadth-first search over the environment's own steps."""
    maze = mazes.make(task, **kwargs)
    start, _ = maze.reset()
    queue, seen = deque([(start, 0)]), {start}
    while queue:
        cell, steps = queue.popleft()
        for action in range(4):
            maze.set_extra_state({"cell": cell, "steps": 0})
            following, reward, terminated, truncated, _ = maze.step(action)
            assert (reward, truncated) == (float(terminated), False)
            if terminated:
                return steps + 1
            if following not in seen:
                seen.add(following)
                queue.append((following, steps + 1))
    raise AssertionError("no way to the goal")


@pytest.mark.parametrize(("task", "before"), [("Dyna", 14), ("Blocking", 10), ("Shortcut", 16)])
def test_shortest_path(task: str, before: int) -> None:
    assert shortest(task) == before


@pytest.mark.parametrize(("task", "after"), [("Blocking", 16), ("Shortcut", 10)])
def test_shortest_path_after_the_change(task: str, after: int) -> None:
    assert shortest(task, change_step=0) == after


def test_the_change_comes_after_so_many_steps_over_all_episodes() -> None:
    maze = mazes.make("Blocking", change_step=3)
    for _ in range(3):
        maze.reset()
        assert maze.rows[3] == "########."
        maze.step(0)
    assert maze.rows[3] == ".########"


def test_names_and_arguments() -> None:
    spec = describe(EnvConfig("maze/Dyna", max_episode_steps=9))
    assert (spec.states, spec.action_dim, spec.discrete, spec.max_episode_steps) == (54, 4, True, 9)
    for kwargs in ({"change": 3}, {"change_step": -1}, {"change_step": 2.5}):
        with pytest.raises(OptionError, match="data.env.kwargs"):
            make_gym("maze/Blocking", **kwargs)
    with pytest.raises(OptionError, match="never changes"):
        make_gym("maze/Dyna", change_step=5)
    with pytest.raises(OptionError, match="maze/Dyna"):
        make_gym("maze/dyna")
