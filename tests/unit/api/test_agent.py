"""Trained agents act on an environment's own observations, with its own actions, as evaluation does."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import lit_mbrl
from lit_mbrl.algorithms import DQN, SAC, SACSVG, Algorithm
from lit_mbrl.app import CONF
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.interface import Interface
from lit_mbrl.utils.errors import OptionError, UsageError
from tests.helpers.frames import ALGORITHMS
from tests.helpers.runs import SHORT, fit, make_data, make_trainer
from tests.helpers.toys import GOAL, TOY


def saved(algorithm: Algorithm, data: Any, path: Path) -> Path:
    fit(algorithm, data).save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SAC]:
    sac = SAC(hidden_sizes=[8, 8], normalize_observations=[1e-3, 1e3])
    return saved(sac, make_data(), tmp_path_factory.mktemp("run") / "last.ckpt"), sac


def test_actions_are_those_of_evaluation_in_the_environment_s_units(pendulum: tuple[Path, SAC]) -> None:
    path, sac = pendulum
    agent, env = lit_mbrl.load(path), gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    action = agent.act(observation)
    expected = 2.0 * sac.act(sac.normalize(torch.from_numpy(observation)[None]))[0].detach()  # torques in [-2, 2]
    assert action.shape == (1,) and action.dtype == np.float32
    np.testing.assert_allclose(action, expected.numpy(), rtol=1e-6)
    assert env.action_space.contains(action)
    assert agent.algorithm.env_steps == SHORT["total_frames"]


def test_a_batch_is_as_many_single_ones(pendulum: tuple[Path, SAC]) -> None:
    agent = lit_mbrl.load(pendulum[0])
    observations = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    batch = agent.act(observations)
    assert batch.shape == (4, 1)
    agent.reset()
    np.testing.assert_allclose(batch, np.stack([agent.act(each) for each in observations]), rtol=1e-5)


@pytest.mark.parametrize("kind", [list, np.float64, np.float32, np.float16, np.int64, torch.tensor])
def test_observations_may_be_numbers_of_any_type(kind: Any, pendulum: tuple[Path, SAC]) -> None:
    values = [1.0, 0.0, 0.0]
    given = np.array(values, kind) if isinstance(kind, type) and issubclass(kind, np.generic) else kind(values)
    agent = lit_mbrl.load(pendulum[0])
    assert np.array_equal(agent.act(given), lit_mbrl.load(pendulum[0]).act(np.array(values, np.float32)))


def test_an_agent_says_what_it_is(pendulum: tuple[Path, SAC]) -> None:
    assert repr(lit_mbrl.load(pendulum[0])) == "<SAC trained on Pendulum-v1 for 60 env steps>"


def test_exploring_actions_differ(pendulum: tuple[Path, SAC]) -> None:
    agent = lit_mbrl.load(pendulum[0])
    observation = np.array([1.0, 0.0, 0.0], np.float32)
    drawn = {float(agent.act(observation, deterministic=False)[0]) for _ in range(5)}
    assert len(drawn) == 5 and max(map(abs, drawn)) <= 2.0


def test_what_is_no_observation_is_said(pendulum: tuple[Path, SAC]) -> None:
    agent = lit_mbrl.load(pendulum[0])
    with pytest.raises(UsageError, match=r"^act: its observation has shape \[2\], not \[3\]"):
        agent.act(np.zeros(2, np.float32))
    agent.act(np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match=r"3 observations after 2: expected reset\(\)"):
        agent.act(np.zeros((3, 3), np.float32))
    assert agent.act(np.zeros((3, 3), np.float32), is_init=[True] * 3).shape == (3, 1)
    with pytest.raises(UsageError, match=r"is_init has 1 entries: expected one for each of 3"):
        agent.act(np.zeros((3, 3), np.float32), is_init=[True])
    with pytest.raises(UsageError, match=r"^act: expected an observation of Box"):
        agent.act(gym.make("Pendulum-v1").reset())


def test_what_does_not_go_together_is_one_line(pendulum: tuple[Path, SAC]) -> None:
    with pytest.raises(
        OptionError, match=r"--data.env.name=CartPole-v1: expected .* continuous actions, which SAC needs"
    ):
        fit(SAC(hidden_sizes=[8]), make_data("CartPole-v1"))
    other = r"--data.env.name=Swimmer-v5: expected an environment with the observations and actions of Pendulum-v1"
    with pytest.raises(OptionError, match=other):
        fit(SAC.load_from_checkpoint(pendulum[0]), make_data("Swimmer-v5"))
    with warnings.catch_warnings(), pytest.raises(OptionError, match=r"--data=None: expected a data module"):
        warnings.simplefilter("ignore")  # Lightning's, of loaders that are missing
        make_trainer().fit(SAC(hidden_sizes=[8]))
    with pytest.raises(OptionError, match=r"expected a file, not a folder"):
        SAC.load_from_checkpoint(pendulum[0].parent)


def test_the_lightning_way(pendulum: tuple[Path, SAC]) -> None:
    path, sac = pendulum
    loaded = SAC.load_from_checkpoint(path, gamma=0.5)
    assert loaded.gamma == 0.5 and loaded.hidden_sizes == (8, 8)
    for name, value in sac.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    with pytest.raises(OptionError, match=r"--ckpt_path=.*: expected a checkpoint of DQN, not of SAC"):
        DQN.load_from_checkpoint(path)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_comes_back(name: str, tmp_path: Path) -> None:
    algorithm = ALGORITHMS[name]()
    path = saved(algorithm, make_data(), tmp_path / "last.ckpt")
    agent = lit_mbrl.load(path)
    observation = np.array([0.6, 0.8, 1.0], np.float32)
    expected = algorithm.act(torch.from_numpy(observation)[None])[0].detach().numpy() * 2.0
    np.testing.assert_allclose(agent.act(observation), expected, rtol=1e-6)


def test_a_loaded_algorithm_can_be_trained(pendulum: tuple[Path, SAC]) -> None:
    loaded, data = SAC.load_from_checkpoint(pendulum[0]), make_data(total_frames=80)
    before = torch.cat([weight.flatten() for weight in loaded.actor.parameters()])
    assert loaded.train_steps == 36
    fit(loaded, data)
    assert loaded.env_steps == data.env_steps == 80 and loaded.train_steps == data.train_steps == 56
    assert not torch.equal(before, torch.cat([weight.flatten() for weight in loaded.actor.parameters()]))


def test_discrete_actions_are_indices(tmp_path: Path) -> None:
    dqn = DQN(hidden_sizes=[8])
    agent = lit_mbrl.load(saved(dqn, make_data("CartPole-v1"), tmp_path / "last.ckpt"))
    env = gym.make("CartPole-v1")
    assert env.action_space.contains(agent.act(env.reset(seed=0)[0]))
    assert env.action_space.contains(agent.act(env.reset(seed=0)[0], deterministic=False))


def test_a_run_folder_means_its_best_checkpoint(pendulum: tuple[Path, SAC], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(OptionError, match=r"expected a checkpoint, or a run folder with one"):
        lit_mbrl.load(tmp_path / "run")
    (folder / "last.ckpt").write_bytes(pendulum[0].read_bytes())
    assert isinstance(lit_mbrl.load(tmp_path / "run").algorithm, SAC)
    (folder / "best.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(OptionError, match=r"best\.ckpt: expected a checkpoint that can be read"):
        lit_mbrl.load(tmp_path / "run")


def test_a_checkpoint_runs_no_code_of_others(pendulum: tuple[Path, SAC], tmp_path: Path) -> None:
    """Neither modules of the working directory nor functions of installed ones."""
    (tmp_path / "evil_agent.py").write_text("raise SystemExit('was run')")
    calls = {"class_path": "os.mkdir", "init_args": {"path": str(tmp_path / "made")}}
    own = {"class_path": "evil_agent.Evil", "init_args": {}}
    loading = "import sys, lit_mbrl\ntry: lit_mbrl.load('bad.ckpt')\nexcept Exception as error: sys.exit(str(error))"
    for entry, told in ((calls, "os.mkdir: expected the path of a class with options"), (own, "--trust")):
        for part in ("model", "env"):
            content = torch.load(pendulum[0], weights_only=True)
            content["agent"][part] = entry
            torch.save(content, tmp_path / "bad.ckpt")
            found = subprocess.run(
                [sys.executable, "-c", loading],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(CONF.parent)},
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert found.returncode == 1 and told in found.stderr, found.stderr
    assert not (tmp_path / "made").exists()


class Recurrent(SACSVG):
    """For the test of memories: an action that counts the steps of its episode."""

    def eval_policy(self) -> Any:
        steps: list[torch.Tensor] = []

        def play(observation: torch.Tensor, is_init: torch.Tensor) -> torch.Tensor:
            count = torch.where(is_init, 0.0, steps.pop() + 0.1 if steps else torch.zeros(len(observation), 1))
            steps.append(count)
            return count

        return play


def test_a_memory_lasts_an_episode(tmp_path: Path) -> None:
    path = saved(Recurrent(hidden_sizes=[8], model_hidden_size=8), make_data(TOY), tmp_path / "last.ckpt")
    agent, two = lit_mbrl.load(path), np.zeros((2, 3))
    assert agent.act(two)[:, 0].tolist() == [2.0, 2.0]  # the middle of [0, 4]
    np.testing.assert_allclose(agent.act(two)[:, 0], [2.2, 2.2], rtol=1e-6)
    np.testing.assert_allclose(agent.act(two, is_init=[False, True])[:, 0], [2.4, 2.0], rtol=1e-6)
    agent.reset()
    assert agent.act(two[0]).tolist() == [2.0]


@pytest.mark.parametrize("name", [GOAL, "FrozenLake-v1", "CarRacing-v3", "Blackjack-v1"])
def test_observations_of_every_kind_one_or_many(name: str) -> None:
    interface, envs = Interface(EnvConfig(name)), [gym.make(name) for _ in range(3)]
    ours = [lit_mbrl.make_env(name) for _ in range(3)]
    own = [env.reset(seed=i)[0] for i, env in enumerate(envs)]
    expected = np.stack([env.reset(seed=i)[0] for i, env in enumerate(ours)])
    for i, each in enumerate(own):
        seen, single = interface.observation(each)
        assert single and np.array_equal(seen[0], expected[i])
    batch = gym.vector.utils.concatenate(
        envs[0].observation_space, own, gym.vector.utils.create_empty_array(envs[0].observation_space, 3)
    )
    seen, single = interface.observation(batch)
    assert not single and np.array_equal(seen, expected)


def test_drawn_images_are_seen_as_in_training() -> None:
    from lit_mbrl.envs import PixelConfig

    interface = Interface(EnvConfig("Pendulum-v1", pixels=PixelConfig(size=32)))
    ours, own = (
        lit_mbrl.make_env("Pendulum-v1", pixels=PixelConfig(size=32)),
        gym.make("Pendulum-v1", render_mode="rgb_array"),
    )
    expected, _ = ours.reset(seed=3)
    own.reset(seed=3)
    seen, single = interface.observation(own.render())
    assert single and np.array_equal(seen[0], expected)
    with pytest.raises(UsageError, match=r"expected drawn images \[H, W, 3\] of uint8"):
        interface.observation(np.zeros(3, np.float32))


def test_a_script_s_positional_environment() -> None:
    data = OffPolicy("Pendulum-v1", **SHORT)
    assert data.env == EnvConfig("Pendulum-v1")
