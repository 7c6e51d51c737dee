"""Every POPLIN task against its formula, written out again here from the simulator's positions and velocities."""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import pytest

from lit_mbrl.envs.make import make_gym
from lit_mbrl.envs.tasks.poplin import TASKS


def _hopper(x, v, a):
    return np.concatenate([x[1:], v]), v[0] - 3.0 * (x[1] - 1.3) ** 2 - 0.1 * (a**2).sum() + 1.0


def _ant(x, v, a):
    return np.concatenate([x[2:], v]), v[0] - 3.0 * (x[2] - 0.57) ** 2 - 0.1 * (a**2).sum() + 1.0


def _half_cheetah(x, v, a):
    return np.concatenate([x[1:], v]), v[0] - 0.1 * (a**2).sum()


# From qpos, qvel and action of the same step: observation and reward.
FORMULAS = {"Hopper": _hopper, "Walker2d": _hopper, "Ant": _ant, "HalfCheetah": _half_cheetah}
SIZES = {"Hopper": 11, "Walker2d": 17, "Ant": 27, "HalfCheetah": 17, "Swimmer": 9, "PETSCheetah": 18}


def _positions(env):
    return env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy()


def _actions(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("task", FORMULAS)
def test_observation_and_reward_follow_the_formula(task):
    env = make_gym(f"poplin/{task}")
    observation, _ = env.reset(seed=0)
    for action in _actions(env, 150):
        expected_observation, expected_reward = FORMULAS[task](*_positions(env), action.astype(np.float64))
        np.testing.assert_array_equal(observation, expected_observation.astype(np.float32))
        observation, reward, terminated, truncated, _ = env.step(action)
        assert reward == pytest.approx(expected_reward, abs=1e-9)
        assert not terminated
        assert not truncated


def test_swimmer_is_rewarded_by_the_previous_velocity_of_its_tip():
    env = make_gym("poplin/Swimmer")
    u = env.unwrapped

    def tip():  # the torso's capsule runs from x = 1.5 to 0.5 in its own frame
        data = copy.copy(u.data)
        mujoco.mj_kinematics(u.model, data)
        torso = data.body("torso")
        return (torso.xpos + torso.xmat.reshape(3, 3) @ [1.5, 0, 0])[0]

    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        velocity = 0.0
        for action in _actions(env, 80, episode):
            x, v = _positions(env)
            np.testing.assert_allclose(observation, np.concatenate([x[2:], v, [velocity]]), rtol=1e-6, atol=1e-6)
            before = tip()
            observation, reward, terminated, _, _ = env.step(action)
            assert reward == pytest.approx(velocity - 1e-4 * (action.astype(np.float64) ** 2).sum(), abs=1e-9)
            assert not terminated
            velocity = (tip() - before) / 0.04
        assert abs(velocity) > 1e-3


@pytest.mark.parametrize("sin_cos_pitch", [False, True])
def test_pets_cheetah_is_rewarded_by_the_velocity_it_observes_next(sin_cos_pitch):
    env = make_gym("poplin/PETSCheetah", sin_cos_pitch=sin_cos_pitch)
    observation, _ = env.reset(seed=0)
    x, v = _positions(env)
    assert 0 < np.abs(np.concatenate([x, v])).max() < 6e-3  # N(0, 1e-3) on 18 numbers
    velocity = 0.0
    for action in _actions(env, 150):
        x, v = _positions(env)
        pitch = [np.sin(x[2]), np.cos(x[2])] if sin_cos_pitch else [x[2]]
        expected = np.concatenate([[velocity, x[1]], pitch, x[3:], v])
        np.testing.assert_allclose(observation, expected, rtol=1e-6, atol=1e-6)
        observation, reward, terminated, _, info = env.step(action)
        velocity = (env.unwrapped.data.qpos[0] - x[0]) / 0.05
        assert reward == pytest.approx(velocity - 0.1 * (action.astype(np.float64) ** 2).sum(), abs=1e-9)
        assert reward == pytest.approx(info["reward_forward"] + info["reward_ctrl"], abs=1e-6)
        assert not terminated
    assert len(observation) == (19 if sin_cos_pitch else 18)


@pytest.mark.parametrize("task", TASKS)
def test_episodes_are_truncated_after_1000_steps_and_never_terminate(task):
    env = make_gym(f"poplin/{task}")
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (SIZES[task],)
    assert observation.dtype == env.observation_space.dtype == np.float32
    flags = [env.step(action)[2:4] for action in _actions(env, 1000)]
    assert flags == [(False, False)] * 999 + [(False, True)]


def test_walker_velocities_are_not_clipped_and_its_body_is_the_old_one():
    env = make_gym("poplin/Walker2d")
    env.reset(seed=0)
    velocities = np.array([env.step(action)[0][8:] for action in _actions(env, 1000)])
    assert np.abs(velocities).max() > 10.0  # where Gymnasium's own observation stops
    right, left = (env.unwrapped.model.geom(f"foot{side}_geom").friction[0] for side in ("", "_left"))
    assert (right, left) == (0.9, 1.9)
