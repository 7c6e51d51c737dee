"""Every MBPO task against its formula, and its termination rule against the simulator's flag."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_mbrl.envs.make import make_gym
from lit_mbrl.envs.tasks.mbpo import TASKS, terminated

# observation length, action length, scale of the torques, weight of the velocity, c, alive bonus
TABLE = {
    "Hopper": (11, 3, 1.0, 1.0, 1e-3, 1.0),
    "Walker2d": (17, 6, 1.0, 1.0, 1e-3, 1.0),
    "HalfCheetah": (17, 6, 1.0, 1.0, 0.1, 0.0),
    "AntTruncatedObs": (27, 8, 1.0, 1.0, 0.5, 1.0),
    "HumanoidTruncatedObs": (45, 17, 0.4, 1.25, 0.1, 5.0),
}


def _position(u, task):
    """The x coordinate whose change is the forward velocity."""
    if task == "AntTruncatedObs":
        return u.data.body("torso").xpos[0]
    if task == "HumanoidTruncatedObs":
        return u.model.body_mass @ u.data.xipos[:, 0] / u.model.body_mass.sum()
    return u.data.qpos[0]


def _contact_cost(u, task):
    if task == "AntTruncatedObs":
        return 5e-4 * np.square(np.clip(u.data.cfrc_ext, -1, 1)).sum()
    if task == "HumanoidTruncatedObs":
        return min(5e-7 * np.square(u.data.cfrc_ext).sum(), 10.0)
    return 0.0


def _observation(u, task):
    first = 2 if task in ("AntTruncatedObs", "HumanoidTruncatedObs") else 1
    v = np.clip(u.data.qvel, -10, 10) if task in ("Hopper", "Walker2d") else u.data.qvel
    return np.concatenate([u.data.qpos[first:], v]).astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_reward_observation_and_termination_follow_the_formula(task):
    size, actions, scale, weight, c, alive = TABLE[task]
    env = make_gym(f"mbpo/{task}")
    u, rng, ends = env.unwrapped, np.random.default_rng(0), 0
    assert env.observation_space.shape == (size,)
    assert env.action_space.shape == (actions,)
    observation, _ = env.reset(seed=0)
    for _ in range(400):
        np.testing.assert_array_equal(observation, _observation(u, task))
        before, action = _position(u, task), rng.uniform(-1, 1, actions).astype(np.float32)
        observation, reward, end, truncated, _ = env.step(action)
        velocity = (_position(u, task) - before) / u.dt
        control = c * np.square(scale * action.astype(np.float64)).sum()
        # The bonus is paid on the terminating step too.
        assert reward == pytest.approx(weight * velocity - control - _contact_cost(u, task) + alive, abs=1e-5)
        assert end == terminated(f"mbpo/{task}")(observation).item()
        assert not truncated
        if end:
            ends += 1
            observation, _ = env.reset()
    assert (ends > 0) == (task not in ("HalfCheetah",))


@pytest.mark.parametrize(("task", "alive"), [("Hopper", 1.0), ("HumanoidTruncatedObs", 5.0)])
def test_alive_bonus_of_the_terminating_step_can_be_left_out(task, alive):
    last = []
    for pay in (True, False):
        env = make_gym(f"mbpo/{task}", alive_bonus_on_termination=pay)
        env.reset(seed=0)
        action, end = np.ones(env.action_space.shape, np.float32), False
        while not end:
            _, reward, end, _, _ = env.step(action)
        last.append(reward)
    assert last[0] - last[1] == pytest.approx(alive)


@pytest.mark.parametrize("task", TASKS)
def test_half_cheetah_and_healthy_bodies_run_for_1000_steps(task):
    env = make_gym(f"mbpo/{task}", max_episode_steps=3)
    env.reset(seed=0)
    flags = [env.step(np.zeros(env.action_space.shape, np.float32))[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]
    assert make_gym(f"mbpo/{task}").get_wrapper_attr("_max_episode_steps") == 1000


NAN, INF = float("nan"), float("inf")
HEALTHY = {"Hopper": 1.25, "Walker2d": 1.25, "HalfCheetah": 0.0, "AntTruncatedObs": 0.75, "HumanoidTruncatedObs": 1.4}
EDGES = [
    ("Hopper", {0: 0.7}, True),
    ("Hopper", {0: 0.71}, False),
    ("Hopper", {1: -0.2}, True),
    ("Hopper", {1: 0.19}, False),
    ("Hopper", {5: -100.0}, True),
    ("Hopper", {5: -99.0}, False),
    ("Hopper", {10: NAN}, True),
    ("Walker2d", {0: 0.8}, True),
    ("Walker2d", {0: 1.99}, False),
    ("Walker2d", {0: 2.0}, True),
    ("Walker2d", {1: -1.0}, True),
    ("Walker2d", {1: 0.99}, False),
    ("HalfCheetah", {0: -50.0, 1: NAN}, False),
    ("AntTruncatedObs", {0: 0.19}, True),
    ("AntTruncatedObs", {0: 0.21}, False),
    ("AntTruncatedObs", {0: 1.01}, True),
    ("AntTruncatedObs", {20: INF}, True),
    ("HumanoidTruncatedObs", {0: 0.99}, True),
    ("HumanoidTruncatedObs", {0: 1.0}, False),
    ("HumanoidTruncatedObs", {0: 2.01}, True),
]


@pytest.mark.parametrize(("task", "changes", "expected"), EDGES)
def test_termination_rules_at_their_edges_for_arrays_and_tensors(task, changes, expected):
    observation = np.zeros((2, 3, TABLE[task][0]))
    observation[..., 0] = HEALTHY[task]
    assert not terminated(task)(observation).any()
    for index, value in changes.items():
        observation[1, 2, index] = value
    result = terminated(task)(observation)
    assert result.shape == (2, 3, 1)
    assert result.dtype == np.bool_
    assert result[1, 2, 0] == expected
    assert result.sum() == expected
    as_tensor = terminated(task)(torch.from_numpy(observation))
    assert torch.equal(as_tensor, torch.from_numpy(result))


def test_an_unknown_task_has_no_rule():
    with pytest.raises(KeyError):
        terminated("mbpo/Swimmer")
