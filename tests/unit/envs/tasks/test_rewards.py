"""The known rewards are the environments'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, describe, make_gym
from lit_mbrl.envs.spec import Features
from lit_mbrl.envs.tasks.rewards import _RULES, arm_tip, features, rule

STEPS = 600


def random_steps(name: str) -> tuple[np.ndarray, ...]:
    """Observation, action, next observation, reward of steps under slowly changing random actions, with resets."""
    env, random = make_gym(name), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    action, rows = np.zeros(env.action_space.shape, np.float32), []
    for i in range(STEPS):
        if random.random() < 0.2:
            action = random.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, following, [reward]))
        observation = env.reset()[0] if terminated or truncated or i % 140 == 139 else following
    env.close()
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("name", sorted(_RULES))
def test_rules_give_what_the_environment_gives(name: str) -> None:
    observation, action, following, reward = random_steps(name)
    found = rule(name)(*(x.astype(np.float64) for x in (observation, action, following)))
    assert found.shape == (STEPS, 1) and reward.std() > (0 if name == "InvertedPendulum-v5" else 1e-3)
    # Observations are float32.
    np.testing.assert_allclose(found, reward, rtol=2e-5, atol=2e-5 * np.abs(observation).max())
    tensors = [torch.from_numpy(x) for x in (observation, action, following)]
    in_float32 = rule(name)(*tensors)
    assert in_float32.dtype == torch.float32
    np.testing.assert_allclose(in_float32.numpy(), found, rtol=1e-4, atol=1e-4 * np.abs(observation).max())
    assert rule(name)(*(x.view(3, 200, -1) for x in tensors)).shape == (3, 200, 1)


def test_the_tip_of_the_arm_is_where_the_simulator_has_it() -> None:
    import mujoco

    env = make_gym("pets/Reacher").unwrapped
    random = np.random.default_rng(0)
    for _ in range(20):
        env.data.qpos[:7] = random.uniform(-3.0, 3.0, 7)
        mujoco.mj_forward(env.model, env.data)
        tip = np.concatenate(arm_tip(env.data.qpos[:7].copy()))
        np.testing.assert_allclose(tip, env.data.site("tip").xpos, atol=1e-10)


def test_the_pusher_s_goal_does_not_move() -> None:
    env = make_gym("pets/Pusher")
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(20):
            env.step(env.action_space.sample())
        np.testing.assert_allclose(env.unwrapped.get_body_com("goal"), [0.45, -0.05, -0.323], atol=1e-12)


def test_the_pole_hangs_at_first_and_a_standing_one_is_worth_1() -> None:
    env = make_gym("pets/CartPole")
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(300)])
    assert np.abs(starts.std(0) - 0.1).max() < 0.02 and np.abs(starts.mean(0)).max() < 0.02
    standing = torch.tensor([[0.0, torch.pi, 0.0, 0.0]])
    assert rule("pets/CartPole")(standing, torch.zeros(1, 1), standing).item() == pytest.approx(1.0)
    hanging = torch.zeros(1, 4)
    assert rule("pets/CartPole")(hanging, torch.ones(1, 1), hanging).item() == pytest.approx(np.exp(-4) - 0.09)


@pytest.mark.parametrize(
    ("name", "steps"), [("CartPole", 200), ("Reacher", 150), ("Pusher", 150), ("HalfCheetah", 1000)]
)
def test_episodes_are_as_long_as_the_paper_s(name: str, steps: int) -> None:
    assert describe(EnvConfig(f"pets/{name}")).max_episode_steps == steps
    assert describe(EnvConfig(f"pets/{name}", max_episode_steps=7)).max_episode_steps == 7


def test_what_may_change_the_reward_leaves_none() -> None:
    assert rule("Pusher-v5", {"render_mode": "rgb_array"}) is rule("Pusher-v5") is not None
    assert rule("Pusher-v5", {"reward_control_weight": 1.0}) is None
    assert rule("poplin/PETSCheetah", {"sin_cos_pitch": True}) is None
    assert features("poplin/PETSCheetah", {"sin_cos_pitch": True}) == Features()
    assert rule("HalfCheetah-v5") is None and rule("dmc/walker-walk") is None


def test_a_task_s_description_has_reward_and_features() -> None:
    spec = describe(EnvConfig("pets/CartPole"))
    assert spec.reward is rule("pets/CartPole") and spec.features == Features(angles=(1,))
    assert describe(EnvConfig("pets/CartPole", action_repeat=2)).reward is None
    assert describe(EnvConfig("MountainCarContinuous-v0")).reward is None
