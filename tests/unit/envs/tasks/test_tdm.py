"""The goal tasks of temporal difference models against their simulators."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, describe, make_gym
from lit_mbrl.envs.tasks import tdm
from lit_mbrl.envs.tasks.rewards import goal_rule
from lit_mbrl.utils.errors import OptionError

SIZES = {
    "HalfCheetahVelocity": (17, 1, 6, 100),
    "AntPosition": (30, 2, 8, 50),
    "Reacher": (17, 3, 7, 100),
    "Pusher": (20, 6, 7, 100),
}


def play(task: str, steps: int = 40, **kwargs: Any) -> list[tuple[dict, float, bool]]:
    """Observations, rewards and terminations of random steps, over resets."""
    env, random = tdm.make(task, **kwargs), np.random.default_rng(0)
    env.reset(seed=0)
    said = []
    for _ in range(steps):
        space = env.action_space
        seen, reward, terminated, truncated, _ = env.step(random.uniform(space.low, space.high).astype(np.float32))
        said.append((seen, reward, terminated))
        if terminated or truncated:
            env.reset()
    env.close()
    return said


@pytest.mark.parametrize("task", tdm.TASKS)
def test_sizes_are_those_of_the_table(task: str) -> None:
    size, goal, action, limit = SIZES[task]
    spec = describe(EnvConfig(f"tdm/{task}"))
    widths = {name: part.stop - part.start for name, part in spec.parts.items()}
    assert widths == {"observation": size, "achieved_goal": goal, "desired_goal": goal}
    assert (spec.action_dim, spec.max_episode_steps, spec.observation_dim) == (action, limit, size + 2 * goal)
    assert describe(EnvConfig(f"tdm/{task}", max_episode_steps=7)).max_episode_steps == 7


@pytest.mark.parametrize("task", tdm.TASKS)
def test_rewards_are_those_of_the_goals_one_by_one_and_all_together(task: str) -> None:
    said = play(task)
    env, rule = tdm.make(task).unwrapped, goal_rule(f"tdm/{task}")
    achieved, desired = (np.stack([seen[key] for seen, _, _ in said]) for key in ("achieved_goal", "desired_goal"))
    paid = [reward for _, reward, _ in said]
    np.testing.assert_allclose(env.compute_reward(achieved, desired, {}), paid, rtol=1e-12)
    of_tensors = rule(torch.from_numpy(achieved), torch.from_numpy(desired))
    assert of_tensors.shape == (len(paid), 1)
    np.testing.assert_allclose(of_tensors[:, 0].numpy(), paid, rtol=1e-12)
    assert describe(EnvConfig(f"tdm/{task}")).goal_reward is rule


@pytest.mark.parametrize("task", tdm.TASKS)
def test_the_goal_is_not_in_the_observation_and_stays_for_an_episode(task: str) -> None:
    env, other = tdm.make(task), tdm.make(task)
    (seen, _), (same, _) = env.reset(seed=3), other.reset(seed=3)
    other.unwrapped.goal = other.unwrapped.goal + 1.0
    for _ in range(20):
        action = env.action_space.sample()
        seen, same = env.step(action)[0], other.step(action)[0]
        assert np.array_equal(seen["observation"], same["observation"])
        np.testing.assert_allclose(same["desired_goal"] - seen["desired_goal"], 1.0)


def test_the_cheetah_is_paid_for_its_velocity() -> None:
    for seen, reward, terminated in play("HalfCheetahVelocity"):
        assert reward == -abs(seen["observation"][8] - seen["desired_goal"][0]) and not terminated
        assert seen["achieved_goal"].tolist() == [seen["observation"][8]]
    env = tdm.make("HalfCheetahVelocity")
    goals = np.array([env.reset(seed=seed)[0]["desired_goal"][0] for seed in range(400)])
    assert goals.min() < -5.5 and goals.max() > 5.5 and np.abs(goals).max() <= 6.0 and abs(goals.mean()) < 0.9
    slow = tdm.make("HalfCheetahVelocity", max_speed=0.5)
    assert all(abs(slow.reset(seed=seed)[0]["desired_goal"][0]) <= 0.5 for seed in range(20))


def test_the_ant_has_weak_motors_and_falls() -> None:
    env = tdm.make("AntPosition")
    assert (env.unwrapped.model.actuator_gear[:, 0] == 30.0).all()
    seen, _ = env.reset(seed=0)
    data = env.unwrapped.data
    assert np.array_equal(seen["observation"], np.concatenate([data.qpos[2:], data.qvel, data.qpos[:3]]))
    assert np.array_equal(seen["achieved_goal"], data.qpos[:2])
    env.unwrapped.data.qpos[2] = 1.5
    assert env.step(np.zeros(8, np.float32))[2]
    goals = np.stack([env.reset(seed=seed)[0]["desired_goal"] for seed in range(200)])
    assert (np.abs(goals).max(0) > 5.5).all() and np.abs(goals).max() <= 6.0


def test_the_reacher_s_goals_are_those_of_poses_above_the_table() -> None:
    env = tdm.make("Reacher")
    starts, goals = [], []
    for seed in range(100):
        seen, _ = env.reset(seed=seed)
        starts.append(seen["observation"][:7])
        goals.append(seen["desired_goal"])
        mujoco.mj_forward(env.unwrapped.model, env.unwrapped.data)
        assert np.array_equal(seen["achieved_goal"], env.unwrapped.get_body_com("tips_arm"))
    assert (np.stack(starts) == 0).all()  # drawing a goal has left the arm where it was
    goals = np.stack(goals)
    assert goals[:, 2].min() > -0.25 and goals.std(0).min() > 0.1
    shoulder = np.array([0.0, -0.6, 0.0])
    assert np.linalg.norm(goals - shoulder, axis=1).max() < 0.1 + 0.4 + 0.321 + 0.01  # the arm's length


def test_the_reacher_may_be_asked_for_a_whole_state() -> None:
    env = tdm.make("Reacher", goal="state")
    seen, _ = env.reset(seed=0)
    assert np.array_equal(seen["achieved_goal"], seen["observation"]) and (seen["desired_goal"][7:14] == 0).all()
    low, high = env.unwrapped.model.jnt_range[:7].T
    assert ((seen["desired_goal"][:7] >= low) & (seen["desired_goal"][:7] <= high)).all()
    seen, reward, *_ = env.step(np.zeros(7, np.float32))
    far = np.linalg.norm(seen["observation"][14:] - seen["desired_goal"][14:])
    assert reward == pytest.approx(-far, rel=1e-12)
    with pytest.raises(OptionError, match=r"data\.env\.kwargs"):
        make_gym("tdm/Reacher", goal="elbow")


def test_the_pusher_is_gymnasium_s_without_its_control_cost() -> None:
    ours, theirs = tdm.make("Pusher"), make_gym("Pusher-v5")
    (seen, _), (same, _) = ours.reset(seed=5), theirs.reset(seed=5)
    for _ in range(30):
        np.testing.assert_allclose(seen["observation"], same[:20], atol=1e-6)
        np.testing.assert_allclose(seen["desired_goal"], np.tile(same[20:], 2), atol=1e-6)
        action = ours.action_space.sample()
        seen, reward, *_ = ours.step(action)
        same, paid, *_ = theirs.step(action / 2.0)
        assert reward == pytest.approx(paid + 0.1 * np.square(action).sum(), abs=1e-4)


def test_arguments_of_the_body_pass_through_and_unknown_ones_are_refused() -> None:
    assert tdm.make("AntPosition", terminate_when_unhealthy=False).reset(seed=0)
    with pytest.raises(OptionError, match=r"data\.env\.kwargs"):
        make_gym("tdm/Pusher", mass=3)
