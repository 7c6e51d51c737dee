"""DeepMind Control tasks against dm_control itself."""

from __future__ import annotations

import numpy as np
import pytest

from lit_mbrl.envs.make import make_gym
from lit_mbrl.envs.tasks.dmc import DMC
from lit_mbrl.utils.errors import OptionError


def test_steps_equal_those_of_dm_control():
    from dm_control import suite

    reference = suite.load("walker", "walk", task_kwargs={"random": 5})
    env, rng = make_gym("dmc/walker-walk"), np.random.default_rng(0)
    observation, _ = env.reset(seed=5)
    expected = reference.reset()
    for _ in range(50):
        flat = np.concatenate([np.atleast_1d(entry).ravel() for entry in expected.observation.values()])
        np.testing.assert_array_equal(observation, flat.astype(np.float32))
        assert observation.dtype == np.float32
        action = rng.uniform(-1, 1, 6).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        expected = reference.step(action)
        assert reward == expected.reward
        assert not terminated
        assert not truncated


def test_the_time_limit_truncates_and_the_tasks_own_end_terminates():
    env = make_gym("dmc/cartpole-swingup")
    env.reset(seed=0)
    flags = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]
    env = DMC("lqr", "lqr_2_1")  # ends with discount 0 once its state is almost zero, and has no limit
    assert env.max_episode_steps is None
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[2:4] == (False, False)
    with env._env.physics.reset_context() as physics:
        physics.data.qpos[:] = 0.0
        physics.data.qvel[:] = 0.0
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)


def test_unlimited_actions_are_refused():
    with pytest.raises(OptionError, match="finite action bounds"):
        make_gym("dmc/lqr-lqr_2_1")


def test_the_seed_decides_the_episode():
    def rollout(seed):
        env = make_gym("dmc/reacher-easy")
        return np.concatenate([env.reset(seed=seed)[0], env.reset()[0]])

    assert np.array_equal(rollout(1), rollout(1))
    assert not np.array_equal(rollout(1), rollout(2))


def test_the_limit_can_be_longer_than_the_tasks_own():
    env = make_gym("dmc/cartpole-balance", max_episode_steps=1003)
    env.reset(seed=0)
    flags = [env.step(np.zeros(1, np.float32))[3] for _ in range(1003)]
    assert flags == [False] * 1002 + [True]


def test_arguments_reach_the_task():
    env = make_gym("dmc/cartpole-balance", time_limit=0.05)
    env.reset(seed=0)
    assert env.unwrapped.max_episode_steps == 5
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(5)] == [False] * 4 + [True]
    assert pytest.approx(0.01) == env.unwrapped._env.control_timestep()
