"""Exact resume: a restored environment continues bit for bit, also across resets and in a new process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_mbrl.envs import EnvConfig, VectorEnv, make_gym, registered_variants
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.utils.errors import OptionError
from tests.helpers.toys import GOAL, TOY

EXACT = [
    *(name for name in registered_variants() if not name.startswith("world_models/")),  # Box2D and Doom cannot
    *("HalfCheetah-v5", "Humanoid-v5", "Reacher-v5"),
    *("Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1"),
    *("dmc/walker-walk", "dmc/reacher-easy", "dmc/finger-turn_hard"),
    *("HopperBulletEnv-v0", "AntBulletEnv-v0", "lit_mbrl/Sokoban-v0"),
    TOY,
    GOAL,
]
BEFORE, AFTER = 47, 200


def _roll(env, rng, steps, reset_at=None):
    """All that an environment says in so many random steps; `reset_at` forces a reset, for episodes that do not end."""
    said = []
    for i in range(steps):
        space = env.action_space
        action = rng.uniform(-1, 1, space.shape).astype(np.float32) if space.shape else int(rng.integers(space.n))
        observation, reward, terminated, truncated, _ = env.step(action)
        said += [observation, np.array([reward, terminated, truncated], np.float64)]
        if terminated or truncated or i == reset_at:
            said.append(env.reset()[0])
    return said


@pytest.mark.parametrize("name", EXACT)
def test_a_second_environment_continues_bit_for_bit(name):
    env, actions = make_gym(name, max_episode_steps=150), np.random.default_rng(0)
    env.reset(seed=9)
    _roll(env, actions, BEFORE)
    blob = pickle.dumps(get_state(env))
    assert len(blob) < 100_000
    resumed = actions.bit_generator.state
    expected = _roll(env, actions, AFTER, reset_at=AFTER // 2)
    actions.bit_generator.state = resumed
    other = make_gym(name, max_episode_steps=150)
    set_state(other, pickle.loads(blob))
    actual = _roll(other, actions, AFTER, reset_at=AFTER // 2)
    assert len(actual) == len(expected)
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert np.array_equal(a, b), f"differs at {i}"
    env.close()
    other.close()


@pytest.mark.parametrize("name", ["LunarLanderContinuous-v3", "ThrowerBulletEnv-v0", "world_models/CarRacing"])
def test_what_cannot_continue_exactly_says_so(name):
    env = make_gym(name)
    env.reset(seed=0)
    assert get_state(env) is None
    env.close()


def test_an_unknown_wrapper_cannot_be_crossed():
    from gymnasium.wrappers import NormalizeObservation

    env = NormalizeObservation(make_gym("Pendulum-v1"))
    env.reset(seed=0)
    assert get_state(env) is None
    vector = VectorEnv(EnvConfig("LunarLanderContinuous-v3"), seed=0)
    vector.reset()
    assert vector.get_env_state() is None


@pytest.mark.parametrize(("name", "limit"), [(TOY, 5), ("Pendulum-v1", None)])
def test_the_state_of_another_kind_of_environment_is_refused(name, limit):
    env, other = make_gym(TOY), make_gym(name, max_episode_steps=limit)
    env.reset(seed=0)
    other.reset(seed=0)
    with pytest.raises(OptionError, match=r"^--data\.env=.*: expected .* of Toy, as in the checkpoint"):
        set_state(other, get_state(env))


def test_the_generator_of_the_action_space_continues():
    env = make_gym("Pendulum-v1")
    env.reset(seed=0)
    env.action_space.seed(1)
    env.action_space.sample()
    state, expected = get_state(env), None
    expected = env.action_space.sample()
    other = make_gym("Pendulum-v1")
    set_state(other, state)
    assert np.array_equal(other.action_space.sample(), expected)


def _vector(name: str, workers: bool = False, seed: int = 1) -> VectorEnv:
    return VectorEnv(EnvConfig(name, max_episode_steps=60, num_envs=2, workers=workers), seed=seed)


def _continue(env: VectorEnv, td, steps: int) -> tuple[torch.Tensor, object]:
    """Observations and rewards [steps, N, O + 1] for actions that depend on nothing but the step."""
    said = []
    for i in range(steps):
        action = torch.sin(torch.arange(env.action_spec.shape.numel()) + 0.7 * i).reshape(env.action_spec.shape)
        step, td = env.step_and_maybe_reset(td.set("action", action))
        said.append(torch.cat((step["next", "observation"], step["next", "reward"]), -1))
        said.append(torch.cat((td["observation"], td["is_init"].float()), -1))
    return torch.stack(said), td


@pytest.mark.parametrize("workers", [False, True])
def test_the_vector_form_continues_from_a_file_without_code(tmp_path, workers):
    env = _vector("poplin/Swimmer", workers)
    _, td = _continue(env, env.reset(), 30)
    torch.save({"env": env.get_env_state(), "td": td.to_dict()}, tmp_path / "state.pt")
    expected, _ = _continue(env, td.clone(), 100)
    env.close()
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = _vector("poplin/Swimmer", not workers, seed=77)
    carrier = other.reset().update(saved["td"])
    other.set_env_state(saved["env"])
    actual, _ = _continue(other, carrier, 100)
    other.close()
    assert torch.equal(actual, expected)


def test_a_seed_that_was_not_used_yet_is_kept():
    env, other = _vector("Pendulum-v1", seed=5), _vector("Pendulum-v1", seed=6)
    other.set_env_state(env.get_env_state())
    assert torch.equal(other.reset()["observation"], env.reset()["observation"])


def test_the_number_of_copies_must_agree():
    state = _vector("Pendulum-v1").get_env_state()
    with pytest.raises(OptionError, match=r"^--data\.env\.num_envs=3: expected 2"):
        VectorEnv(EnvConfig("Pendulum-v1", num_envs=3), seed=0).set_env_state(state)


_NEW_PROCESS = """
import sys, torch
from tests.unit.envs.test_env_state import _continue, _vector
folder = sys.argv[1]
for i, name in enumerate(sys.argv[2:]):
    saved = torch.load(f"{folder}/{i}.pt", weights_only=True)
    env = _vector(name, seed=77)
    carrier = env.reset().update(saved["td"])
    env.set_env_state(saved["env"])
    torch.save(_continue(env, carrier, 100)[0], f"{folder}/{i}.out")
"""


def test_a_new_process_continues_bit_for_bit(tmp_path):
    names, expected = ["mbpo/AntTruncatedObs", "Pendulum-v1", "HopperBulletEnv-v0"], []
    for i, name in enumerate(names):
        env = _vector(name)
        _, td = _continue(env, env.reset(), 30)
        torch.save({"env": env.get_env_state(), "td": td.to_dict()}, tmp_path / f"{i}.pt")
        expected.append(_continue(env, td, 100)[0])
        env.close()
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", _NEW_PROCESS, str(tmp_path), *names], cwd=root, check=True, timeout=120)
    for i, said in enumerate(expected):
        assert torch.equal(torch.load(tmp_path / f"{i}.out", weights_only=True), said)
