"""The rules say what the simulators say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, describe, make_gym
from lit_mbrl.envs.tasks.terminations import _RULES, rule

STEPS = 2000
ENDS = {  # at least so many of the random steps end an episode
    "InvertedPendulum-v5": 50,
    "InvertedDoublePendulum-v5": 50,
    "Hopper-v5": 20,
    "mbpo/Hopper": 20,
    "Walker2d-v5": 20,
    "mbpo/Walker2d": 20,
    "Ant-v5": 2,
    "mbpo/AntTruncatedObs": 2,
    "Humanoid-v5": 20,
    "mbpo/HumanoidTruncatedObs": 20,
}


def random_steps(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Observation, action, next observation and termination of steps under slowly changing random actions."""
    env = make_gym(name)
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    action = np.zeros(env.action_space.shape)
    rows = []
    for _ in range(STEPS):
        if random.random() < 0.2:  # actions that last a while get further than independent ones
            action = random.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        following, _, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, following, [terminated]))
        observation = env.reset()[0] if terminated or truncated else following
    env.close()
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("name", sorted(_RULES))
def test_rules_say_what_the_simulator_says(name: str) -> None:
    observation, action, following, terminated = random_steps(name)
    found = rule(name)(observation, action, following)
    assert found.dtype == np.bool_ and found.shape == (STEPS, 1)
    assert np.array_equal(found, terminated)
    assert terminated.sum() >= ENDS.get(name, 0) and (name in ENDS or not terminated.any())
    as_tensors = rule(name)(*(torch.from_numpy(x) for x in (observation, action, following)))
    assert torch.equal(as_tensors, torch.from_numpy(found))


def test_what_may_change_the_rule_leaves_none() -> None:
    assert rule("Hopper-v5", {"render_mode": "rgb_array", "healthy_reward": 0.0}) is rule("Hopper-v5")
    assert rule("Hopper-v5", {"healthy_z_range": [0.5, 2.0]}) is None
    assert rule("Hopper-v5", {"exclude_current_positions_from_observation": False}) is None
    assert rule("Hopper-v5", {"terminate_when_unhealthy": False}) is None
    assert rule("CartPole-v1") is None and rule("dmc/walker-walk") is None


def test_a_task_s_description_has_its_rule() -> None:
    assert describe(EnvConfig("InvertedPendulum-v5")).terminated is rule("InvertedPendulum-v5")
    assert describe(EnvConfig("MountainCarContinuous-v0")).terminated is None
