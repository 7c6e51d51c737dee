from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest

from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.envs.make import make_gym
from lit_mbrl.envs.tasks import goals, robotics
from lit_mbrl.utils.errors import OptionError


def test_flipping_the_differing_bits_reaches_the_goal_with_the_last() -> None:
    env = goals.make("BitFlip", bits=6)
    for seed in range(20):
        seen, _ = env.reset(seed=seed)
        differing = np.flatnonzero(seen["achieved_goal"] != seen["desired_goal"])
        assert len(differing) > 0
        paid = [env.step(int(bit))[1:4] for bit in differing]
        assert paid == [(-1.0, False, False)] * (len(differing) - 1) + [(0.0, True, paid[-1][2])]


def test_episodes_are_truncated_after_as_many_steps_as_bits() -> None:
    env = goals.make("BitFlip", bits=6)
    env.reset(seed=0)
    flags = [env.step(action)[2:4] for action in itertools.repeat(0, 6)]
    assert flags == [(False, False)] * 5 + [(False, True)]


def test_batched_rewards_are_those_of_the_single_goals() -> None:
    task = goals.BitFlip(3)
    every = np.array(list(itertools.product([0, 1], repeat=6)), np.float32)
    reward = task.compute_reward(every[:, :3], every[:, 3:], {})
    assert reward.tolist() == [0.0 if (row[:3] == row[3:]).all() else -1.0 for row in every]
    assert (task.compute_terminated(every[:, :3], every[:, 3:], {}) == (reward == 0)).all()


def test_the_vector_has_a_column_for_every_bit() -> None:
    spec = describe(EnvConfig("goals/BitFlip", {"bits": 4}))
    order = ["achieved_goal", "desired_goal", "observation"]  # Gymnasium sorts the keys
    assert spec.parts == {name: slice(4 * i, 4 * i + 4) for i, name in enumerate(order)}
    assert (spec.action_dim, spec.discrete, spec.max_episode_steps) == (4, True, 4)


@pytest.mark.parametrize("bits", [0, 1.5, "three"])
def test_a_wrong_number_of_bits_is_refused(bits: object) -> None:
    with pytest.raises(OptionError, match=r"data\.env\.kwargs"):
        make_gym("goals/BitFlip", bits=bits)


def test_robotics_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(OptionError, match="pip install gymnasium-robotics"):
        make_gym("FetchReach-v4")


@pytest.fixture
def robotics_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Importing it registers its names, some of which are Gymnasium's own, for all tests to come."""
    if importlib.util.find_spec("gymnasium_robotics") is None:
        pytest.skip("Gymnasium-Robotics is not installed")
    known = dict(gym.registry)
    monkeypatch.delitem(sys.modules, "gymnasium_robotics", raising=False)
    yield
    gym.registry.clear()
    gym.registry.update(known)


@pytest.mark.usefixtures("robotics_package")
def test_a_task_that_asserts_is_told_with_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:

    def asserts(*_: object, **__: object) -> gym.Env:
        raise AssertionError

    monkeypatch.setattr(gym, "make", asserts)
    with pytest.raises(OptionError, match="Gymnasium-Robotics .* with MuJoCo"):
        robotics.make("FetchReach-v4")


@pytest.mark.usefixtures("robotics_package")
def test_a_maze_observes_its_goals() -> None:
    spec = describe(EnvConfig("PointMaze_UMaze-v3"))
    assert set(spec.parts) == {"observation", "achieved_goal", "desired_goal"}


def test_a_mass_is_pushed_and_paid_for_its_distance() -> None:
    env = goals.make("PointMass")
    env.reset(seed=0)
    env.unwrapped.set_extra_state(
        {"place": np.array([0.1, 0.2]), "speed": np.array([0.1, 0.0]), "goal": np.array([0.5, 0.5])}
    )
    seen, reward, terminated, _, _ = env.step(np.array([1.0, -3.0], np.float32))
    place, speed = [0.1 + 0.075 + 0.05, 0.2 - 0.05], [0.125, -0.05]
    np.testing.assert_allclose(seen["observation"], place + speed, rtol=1e-6)
    np.testing.assert_allclose(seen["achieved_goal"], place, rtol=1e-6)
    assert reward == pytest.approx(-np.hypot(0.5 - place[0], 0.5 - place[1])) and not terminated


def test_a_mass_stops_at_the_wall_and_is_never_faster_than_a_fifth() -> None:
    env = goals.make("PointMass", dimensions=1)
    env.reset(seed=0)
    for _ in range(40):
        seen = env.step(np.ones(1, np.float32))[0]["observation"]
        assert seen[1] <= 0.2
    assert seen.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("dimensions", [0, 1.5])
def test_a_wrong_number_of_dimensions_is_refused(dimensions: object) -> None:
    with pytest.raises(OptionError, match=r"data\.env\.kwargs"):
        make_gym("goals/PointMass", dimensions=dimensions)
