"""One agent on several tasks: who plays what, actions of different lengths, returns per task, exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_mbrl.data import SequenceReplay
from lit_mbrl.envs import EnvConfig, PixelConfig, VectorEnv, describe
from lit_mbrl.envs.make import make_configured
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit
from tests.helpers.sequence_learner import LIGHT, SHORT, Remembers
from tests.helpers.toys import PICTURE

HOPPER = "HopperBulletEnv-v0"


def config(**options: Any) -> EnvConfig:
    defaults: dict[str, Any] = {"num_envs": 4, "max_episode_steps": 12, "pixels": PixelConfig(size=8)}
    return EnvConfig(LIGHT, action_repeat=4, other_tasks={HOPPER: 2}, **(defaults | options))


def test_the_spec_is_that_of_all_tasks() -> None:
    spec = describe(config())
    assert (spec.name, spec.action_dim, spec.max_episode_steps) == (f"{LIGHT} and 1 more", 3, 6)
    assert spec.observation_shape == (3, 8, 8) and spec.terminated is None
    assert config().frames_per_step == 3.0


@pytest.mark.parametrize("workers", [False, True])
def test_copies_take_turns_and_use_their_part_of_an_action(workers: bool) -> None:
    env = VectorEnv(config(num_envs=3, workers=workers), seed=5)
    alone = [make_configured(config().of_copy(i)) for i in range(3)]
    assert [each.spec.id for each in alone] == [LIGHT, HOPPER, LIGHT]
    seen = env.reset()["observation"]
    expected = np.stack([each.reset(seed=5 + i)[0] for i, each in enumerate(alone)])
    assert np.array_equal(seen.numpy(), expected)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 3, 3)).astype(np.float32)
    for action in actions:
        observation, reward, *_ = env.advance(action)
        for i, each in enumerate(alone):
            image, r, *_ = each.step(action[i, : each.action_space.shape[0]])
            assert np.array_equal(observation[i], image) and reward[i, 0] == pytest.approx(r)
    env.close()
    for each in alone:
        each.close()


def data(**options: Any) -> SequenceReplay:
    return SequenceReplay(config(num_envs=2, workers=False), **(SHORT | {"eval_episodes": 4} | options))


def test_returns_are_logged_per_task() -> None:
    algorithm, source = Remembers(), data()
    trainer = fit(algorithm, source)
    metrics = trainer.callback_metrics
    per_task = [metrics[f"eval/return/{task}"] for task in (LIGHT, HOPPER)]
    assert metrics["eval/return"] == pytest.approx(float(sum(per_task)) / 2)
    assert source.task_metrics(torch.tensor([1.0, 10.0, 3.0, 20.0])) == {
        f"eval/return/{LIGHT}": torch.tensor(2.0),
        f"eval/return/{HOPPER}": torch.tensor(15.0),
    }
    assert algorithm.progress_metrics()["time/simulator_steps"] == 180.0
    sequences = source.replay.sample(30, 2)
    assert sequences["action"].shape == (30, 2, 3)


def test_a_single_task_has_no_further_metrics() -> None:
    assert SequenceReplay(EnvConfig(LIGHT), **SHORT).task_metrics(torch.ones(3)) == {}


def test_resume_is_exact(tmp_path: Path) -> None:
    whole, whole_data = Remembers(), data()
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(Remembers(), data(), SaveAndStop(tmp_path / "run.ckpt", 7))
    second, second_data = Remembers(), data()
    fit(second, second_data, seed=12345, ckpt_path=tmp_path / "run.ckpt")
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: EnvConfig(LIGHT, other_tasks={LIGHT: 2}),
            f"--data.env.other_tasks={{'{LIGHT}': 2}}: expected other env",
        ),
        (
            lambda: EnvConfig(LIGHT, other_tasks={HOPPER: 0}),
            f"--data.env.other_tasks={{'{HOPPER}': 0}}: expected other",
        ),
        (
            lambda: SequenceReplay(config(num_envs=1), **SHORT),
            "--data.env.num_envs=1: expected a multiple of the number of",
        ),
        (lambda: data(eval_episodes=3), "--data.eval_episodes=3: expected a multiple of the number of tasks, 2"),
        (
            lambda: describe(config(pixels=None)),
            f"--data.env.other_tasks={HOPPER}: expected tasks with continuous actions and the observations of {LIGHT}",
        ),
        (
            lambda: describe(EnvConfig(LIGHT, other_tasks={PICTURE: 1}, pixels=PixelConfig(size=8))),
            f"--data.env.other_tasks={PICTURE}: expected tasks with continuous actions",
        ),
    ],
)
def test_mistakes_are_one_line(make: Any, line: str) -> None:
    with pytest.raises(OptionError) as error:
        make()
    assert str(error.value).startswith(line)
