"""A user's own TorchRL environment, and TorchRL's transforms of any environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, VectorEnv, describe
from lit_mbrl.utils.errors import OptionError
from tests.helpers.torchrl_parts import Point

POINT = "torchrl/tests.helpers.torchrl_parts.Point"
EXACT = "torchrl/tests.helpers.torchrl_parts.ExactPoint"
HALVED = "tests.helpers.torchrl_parts.Halved"


def test_its_spec_is_that_of_the_environment() -> None:
    spec = describe(EnvConfig(POINT, max_episode_steps=9))
    assert (spec.observation_dim, spec.action_dim, spec.discrete, spec.max_episode_steps) == (2, 1, False, 9)


def test_steps_are_its_own_with_actions_in_its_range() -> None:
    env, own = VectorEnv(EnvConfig(POINT, kwargs={"force": 0.25}), seed=3), Point(0.25)
    own.set_seed(3)
    root, expected = env.reset(), own.reset()
    for action in (1.0, -0.5, 0.0):
        assert torch.equal(root["observation"][0], expected["observation"])
        root["action"], expected["action"] = torch.tensor([[action]]), torch.tensor([0.25 * action])
        step, own_step = env.step(root)["next"], own.step(expected)["next"]
        assert torch.equal(step["reward"][0], own_step["reward"])
        assert not step["terminated"].any() and not step["truncated"].any()
        root, expected = step.clone(), own_step.exclude("reward").clone()


def test_an_end_is_terminated_and_a_limit_truncated() -> None:
    env = VectorEnv(EnvConfig(POINT, kwargs={"force": 50.0}, max_episode_steps=30), seed=0)
    frames = env.rollout(30, lambda observation, is_init: torch.ones(1, 1))
    assert frames["next", "terminated"].sum() == 1 and not frames["next", "truncated"].any()
    still = VectorEnv(EnvConfig(POINT, max_episode_steps=4), seed=0).rollout(4)
    assert still["next", "truncated"].flatten().tolist() == [False, False, False, True]


def test_torchrl_s_own_environments_with_a_discrete_action_and_with_several_entries() -> None:
    spec = describe(EnvConfig("torchrl/torchrl.envs.GymEnv", kwargs={"env_name": "CartPole-v1"}))
    assert (spec.observation_dim, spec.action_dim, spec.discrete) == (4, 2, True)
    spec = describe(EnvConfig("torchrl/torchrl.envs.PendulumEnv", observation_keys=("th", "thdot")))
    assert (spec.observation_dim, spec.action_dim) == (2, 1)


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("torchrl/tests.helpers.torchrl_parts.Nothing", {}, "the path of a class or function"),
        ("torchrl/nowhere.Point", {}, "the path of a class or function"),
        (f"torchrl/{HALVED}", {}, "the path of what returns a torchrl.envs.EnvBase"),
        (POINT, {"batch": (2,)}, r"batch size \[\] .* data.env.num_envs makes copies"),
        (POINT, {"weight": 1}, "arguments that .* takes"),
    ],
)
def test_what_is_no_such_environment(name: str, kwargs: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        describe(EnvConfig(name, kwargs=kwargs))


# ---------------------------------------------------------------------- transforms
def test_transforms_by_path_and_with_arguments() -> None:
    scale = {"class_path": "torchrl.envs.RewardScaling", "init_args": {"loc": 1.0, "scale": 2.0}}
    plain = VectorEnv(EnvConfig("Pendulum-v1", num_envs=2), seed=0)
    transformed = VectorEnv(EnvConfig("Pendulum-v1", num_envs=2, transforms=[HALVED, scale]), seed=0)
    state = plain.reset()["observation"]
    seen = transformed.reset()["observation"]
    for copy, pool in zip(plain._pool.envs, transformed._pool.envs, strict=True):
        pool.unwrapped.state = copy.unwrapped.state.copy()
    action = np.array([[0.5], [-1.0]], np.float32)
    (x, reward, *_), (y, other, *_) = plain.advance(action), transformed.advance(action)
    assert seen.shape == state.shape
    np.testing.assert_allclose(y, x / 2, rtol=1e-6)
    np.testing.assert_allclose(other, 2.0 * reward + 1.0, rtol=1e-6)


def test_entries_that_transforms_add_are_not_in_the_way() -> None:
    assert describe(EnvConfig("Pendulum-v1", transforms=["torchrl.envs.StepCounter"])).observation_dim == 3


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        (["torchrl.envs.Nothing"], "the path of a class or function"),
        ([POINT.removeprefix("torchrl/")], "the path of a torchrl Transform"),
        ([{"class_path": HALVED, "init_args": {"by": 3}}], "arguments that .* takes"),
        (
            [
                {
                    "class_path": "torchrl.envs.RenameTransform",
                    "init_args": {"in_keys": ["observation"], "out_keys": ["seen"]},
                }
            ],
            r"transforms that leave an entry `observation` \(they leave seen\)",
        ),
        (
            [{"class_path": "torchrl.envs.UnsqueezeTransform", "init_args": {"dim": -2, "in_keys": ["observation"]}}],
            "transforms whose `observation` is a float32 vector or an image",
        ),
        ([3], "data.env.transforms=.*a string"),
    ],
)
def test_transforms_that_do_not_work(transforms: list[Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        describe(EnvConfig("Pendulum-v1", transforms=transforms))


# ---------------------------------------------------------------------- exact resume
@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(EXACT, max_episode_steps=7, num_envs=2),
        EnvConfig("Pendulum-v1", max_episode_steps=7, transforms=[HALVED, "torchrl.envs.StepCounter"]),
        EnvConfig(EXACT, max_episode_steps=7, transforms=[HALVED]),
    ],
)
def test_a_restored_environment_goes_on_bit_for_bit(config: EnvConfig) -> None:
    env, other = VectorEnv(config, seed=5), VectorEnv(config, seed=9)
    env.rollout(4)
    other.reset()
    state = env.get_env_state()
    assert state is not None
    other.set_env_state(state)
    action = np.full((config.num_envs, 1), 0.3, np.float32)
    for _ in range(8):
        for mine, theirs in zip(env.advance(action), other.advance(action), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        done = np.ones(config.num_envs, np.bool_)
    np.testing.assert_array_equal(env.restart(done), other.restart(done))


def test_without_a_state_of_its_own_it_cannot_be_restored() -> None:
    env = VectorEnv(EnvConfig(POINT), seed=0)
    env.reset()
    assert env.get_env_state() is None
