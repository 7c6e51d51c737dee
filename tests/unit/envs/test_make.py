"""One name in, one environment out: action scaling, flat observations, and one-line errors for wrong options."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from lit_mbrl.envs import EnvConfig, Spec, describe, make_gym, registered_variants
from lit_mbrl.utils.errors import OptionError
from tests.helpers.toys import TOY


def test_humanoid_actions_are_rescaled_to_one():
    env = make_gym("mbpo/HumanoidTruncatedObs")
    env.reset(seed=0)
    for a, torque in ((-1.0, -0.4), (0.5, 0.2), (1.0, 0.4)):
        env.step(np.full(17, a, np.float32))
        np.testing.assert_allclose(env.unwrapped.data.ctrl, torque, rtol=1e-6)


def test_an_asymmetric_action_range_is_rescaled_to_one():
    env = make_gym(TOY)
    env.reset(seed=0)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert [env.step(np.array([a], np.float32))[1] for a in (-1.0, 0.0, 1.0)] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("name", "observation", "action", "discrete", "limit"),
    [
        ("Pendulum-v1", 3, 1, False, 200),
        ("CartPole-v1", 4, 2, True, 500),
        ("LunarLanderContinuous-v3", 8, 2, False, 1000),
        ("BipedalWalker-v3", 24, 4, False, 1600),
        ("HopperBulletEnv-v0", 15, 3, False, 1000),
        ("dmc/walker-walk", 24, 6, False, 1000),
        ("Ant-v4", 27, 8, False, 1000),
        ("mbpo/AntTruncatedObs", 27, 8, False, 1000),
        ("poplin/PETSCheetah", 18, 6, False, 1000),
        (TOY, 3, 1, False, None),
    ],
)
def test_every_family_is_made_from_its_name(name, observation, action, discrete, limit):
    spec = describe(EnvConfig(name))
    assert spec == Spec(name, observation, action, discrete, limit)
    env = make_gym(name)
    first, _ = env.reset(seed=0)
    for _ in range(3):
        then, reward, *_ = env.step(env.action_space.sample())
    assert first.dtype == then.dtype == np.float32
    assert first.shape == then.shape == (observation,)
    assert np.isfinite(reward)
    env.close()


@pytest.mark.parametrize("name", ["Pendulum-v1", "poplin/Ant", "dmc/cartpole-swingup", "HopperBulletEnv-v0", TOY])
def test_the_limit_can_be_replaced(name):
    assert describe(EnvConfig(name, max_episode_steps=7)).max_episode_steps == 7
    env = make_gym(name, max_episode_steps=1)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[2:4] == (False, True)


def test_variants_are_listed():
    assert len(registered_variants()) == 26
    assert {"poplin/Swimmer", "mbpo/Walker2d"} <= set(registered_variants())


def test_images_are_channel_first():
    env = make_gym("CarRacing-v3")
    assert env.observation_space.shape == (3, 96, 96)
    assert (env.action_space.low == -1).all()
    env.close()
    spec = describe(EnvConfig("CarRacing-v3"))
    assert spec.pixels and not spec.discrete
    assert (spec.observation_shape, spec.observation_dim) == ((3, 96, 96), 3 * 96 * 96)
    assert not describe(EnvConfig("Pendulum-v1")).pixels


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Pendulm-v1", "did you mean 'Pendulum-v1'?"),
        ("HalfCheetah-v9", "did you mean 'HalfCheetah-v"),
        ("poplin/Hoper", "did you mean 'poplin/Hopper'?"),
        ("mbpo/hopper", "did you mean 'mbpo/Hopper'?"),
        ("dmc/walker-wlk", "did you mean 'dmc/walker-walk'?"),
        ("HoperBulletEnv-v0", "did you mean 'HopperBulletEnv-v0'?"),
        ("Humanoid-v2", "moved"),
        ("no_such_package:Id-v0", "no_such_package"),
        ("not a name", "expected a Gymnasium id"),
    ],
)
def test_wrong_names_are_told_in_one_line(name, hint):
    with pytest.raises(OptionError) as error:
        describe(EnvConfig(name))
    line = str(error.value)
    assert line.startswith(f"--data.env.name={name}: expected ")
    assert hint in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "kwargs", "hint"),
    [
        ("Hopper-v5", {"no_such": 1}, "no_such"),
        ("poplin/Hopper", {"no_such": 1}, "no_such"),
        ("poplin/Hopper", {"terminate_when_unhealthy": True}, "terminate_when_unhealthy"),
        ("mbpo/Walker2d", {"xml_file": "walker2d_v5.xml"}, "xml_file"),
        ("dmc/walker-walk", {"no_such": 1}, "no_such"),
        ("HopperBulletEnv-v0", {"no_such": 1}, "no_such"),
        ("Hopper-v5", {"xml_file": "no_such.xml"}, "no_such.xml"),
    ],
)
def test_wrong_constructor_arguments_are_told_in_one_line(name, kwargs, hint):
    with pytest.raises(OptionError) as error:
        describe(EnvConfig(name, kwargs))
    line = str(error.value)
    assert line.startswith("--data.env.kwargs=")
    assert hint in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("name", {"name": ""}),
        ("num_envs", {"num_envs": 0}),
        ("num_envs", {"num_envs": 1.5}),
        ("max_episode_steps", {"max_episode_steps": 0}),
        ("max_episode_steps", {"max_episode_steps": True}),
        ("kwargs", {"kwargs": ["a"]}),
        ("kwargs", {"kwargs": {"max_episode_steps": 3}}),
        ("workers", {"workers": 2}),
    ],
)
def test_values_out_of_range_name_their_option(option, values):
    with pytest.raises(OptionError, match=rf"^--data\.env\.{option}="):
        EnvConfig(**{"name": "Pendulum-v1", **values})


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        ("dmc/walker-walk", "dm_control", "pip install dm-control"),
        ("HopperBulletEnv-v0", "pybullet_envs_gymnasium", "pip install pybullet"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, name, package, command):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=command):
        make_gym(name)


def test_making_environments_writes_nothing(tmp_path):
    """PyBullet's banner and MuJoCo's log file: standard output, standard error and the working directory stay clean."""
    code = """
from lit_mbrl.envs import make_gym
import sys
for name in ("HopperBulletEnv-v0", "poplin/HalfCheetah", "Ant-v4"):
    make_gym(name).reset(seed=0)
assert not {"torch", "torchrl", "dm_control"} & set(sys.modules)
print("done")
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(filter(None, [str(p) for p in (sys.path[0], *sys.path)]))},
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)
    assert list(tmp_path.iterdir()) == []
