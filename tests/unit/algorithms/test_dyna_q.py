"""Dyna-Q and Dyna-Q+ in runs: what is learned, exact resume, several kinds of environments, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase

from lit_mbrl.algorithms import DynaQ, DynaQPlus
from lit_mbrl.data import OnPolicy
from lit_mbrl.envs import EnvConfig, Spec, make_gym
from lit_mbrl.training.checks import check_device
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, fit

STEPWISE = {"rollout_steps": 1, "num_epochs": 1, "eval_episodes": 1}


def make_data(env: str = "maze/Dyna", frames: int = 60, num_envs: int = 1, **config: Any) -> OnPolicy:
    config = {"max_eval_steps": 30} | config
    sizes = {"total_frames": frames, "epoch_frames": frames // 2, "batch_size": num_envs}
    return OnPolicy(EnvConfig(env, num_envs=num_envs, **config), **STEPWISE, **sizes)


def path_length(algorithm: DynaQ, env: str, **kwargs: Any) -> int:
    """Steps of the greedy policy to the goal, at most 60."""
    maze = make_gym(env, **kwargs)
    observation, _ = maze.reset()
    for step in range(1, 61):
        action = algorithm.act(torch.from_numpy(observation)[None])
        observation, _, terminated, _, _ = maze.step(int(action))
        if terminated:
            return step
    return 60


def test_it_finds_a_short_way() -> None:
    algorithm = DynaQ(planning_steps=50, lr=0.5)
    fit(algorithm, make_data(frames=1200), seed=0)
    assert path_length(algorithm, "maze/Dyna") <= 18  # of 14 at least; planning is exact in what it has seen
    assert algorithm.episodes > 10 and algorithm.cumulative_reward == algorithm.episodes


@pytest.mark.parametrize("kind", [DynaQ, DynaQPlus])
def test_it_resumes_exactly(kind: type[DynaQ], tmp_path: Path) -> None:
    def state(algorithm: DynaQ) -> dict[str, torch.Tensor]:
        return algorithm.state_dict() | {"random": torch.get_rng_state()}

    whole = kind(planning_steps=5)
    fit(whole, make_data())
    with pytest.raises(Stop):
        fit(kind(planning_steps=5), make_data(), SaveAndStop(tmp_path / "run.ckpt", 41))
    resumed = kind(planning_steps=5)
    fit(resumed, make_data(), seed=5, ckpt_path=tmp_path / "run.ckpt")
    expected, found = state(whole), state(resumed)
    assert expected["model.time"] == 60
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("env", ["Taxi-v4", "FrozenLake-v1", "CliffWalking-v1"])
def test_any_environment_with_discrete_spaces(env: str) -> None:
    algorithm = DynaQPlus(planning_steps=3)
    fit(algorithm, make_data(env, num_envs=2))
    assert int(algorithm.model.time) == 60 and algorithm.q.isfinite().all()


def test_a_step_is_learned_from_once_and_then_planned_with() -> None:
    """The run's own transitions, replayed over plain lists."""
    seen: list[Any] = []

    class Watched(DynaQ):
        def after_collect(self, data: Any, frames: TensorDictBase) -> None:
            seen.append(frames.clone())
            super().after_collect(data, frames)

    algorithm = Watched(planning_steps=0, lr=0.5)
    fit(algorithm, make_data("CliffWalking-v1"))
    q = torch.zeros_like(algorithm.q).tolist()
    for frame in seen:
        state, following = (int(x.argmax()) for x in (frame["observation"], frame["next", "observation"]))
        reward, ended = float(frame["next", "reward"]), bool(frame["next", "terminated"])
        target = reward + (0.0 if ended else algorithm.gamma * max(q[following]))
        action = int(frame["action"])
        q[state][action] += 0.5 * (target - q[state][action])
    assert algorithm.q.tolist() == q and len(seen) == 60


def test_ties_are_broken_at_random_while_collecting() -> None:
    algorithm = DynaQ(epsilon=0.0)
    algorithm.configure(Spec("made up", 2, 3, discrete=True, states=2))
    algorithm.q[0] = torch.tensor([1.0, 0.0, 1.0])
    torch.manual_seed(0)
    actions = algorithm.explore(torch.eye(2)[[0] * 400], torch.zeros(400, 1, dtype=torch.bool))
    assert torch.bincount(actions, minlength=3).tolist() == pytest.approx([200, 0, 200], abs=40)
    assert algorithm.act(torch.eye(2)).tolist() == [0, 0]


def test_what_it_cannot_do_is_said_in_one_line() -> None:
    for name, states in (("CartPole-v1", None), ("of boxes", 4)):
        with pytest.raises(OptionError, match=f"data.env.name={name}: expected an environment with"):
            DynaQ().check(Spec(name, 4, 2, discrete=states is None, states=states))
    data = OnPolicy(EnvConfig("maze/Dyna"), total_frames=60, rollout_steps=2, num_epochs=1, batch_size=2)
    with pytest.raises(OptionError, match="data.rollout_steps=2: expected 1 with DynaQ"):
        DynaQ().check_data(data)
    with pytest.raises(OptionError, match="model.compile=True: expected false"):
        DynaQ(compile=True)
    with pytest.raises(OptionError, match="model.max_grad_norm=1.0: expected null"):
        DynaQ(max_grad_norm=1.0)
    with pytest.raises(OptionError, match="trainer.devices=2"):
        DynaQ().check_devices(2)
    with pytest.raises(OptionError, match="trainer.accelerator=cuda: expected cpu"):
        check_device(DynaQ(), torch.device("cuda"))
