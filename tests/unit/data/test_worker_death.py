"""A worker that dies in the middle of a run: its episodes end there, and nothing else changes."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import main
from lit_mbrl.envs.pool import WorkerPool
from tests.helpers.command_line import SAC as FIT
from tests.helpers.runs import fit, make_data
from tests.helpers.toys import TOY


class KillEvaluation(Callback):
    """Kills a worker of the evaluation before every evaluation but the first."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for env in trainer.datamodule._eval_envs.values():
            os.kill(env._pool.pids[-1], signal.SIGKILL)


def kill_before(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills the last worker before so many-th step of two copies."""
    original, calls = WorkerPool.step, []

    def step(self: WorkerPool, actions: np.ndarray) -> Any:
        calls.append(len(actions))
        if calls.count(2) == call:
            os.kill(self.pids[-1], signal.SIGKILL)
        return original(self, actions)

    monkeypatch.setattr(WorkerPool, "step", step)


# With three steps per batch, the first, the second and the third of a batch.
@pytest.mark.parametrize(("frames_per_batch", "call"), [(2, 17), (6, 16), (6, 17), (6, 18)])
def test_the_replay_stays_one_of_real_episodes(
    frames_per_batch: int, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_before(call, monkeypatch)
    data = make_data(TOY, max_episode_steps=7, num_envs=2, frames_per_batch=frames_per_batch, eval_episodes=1)
    data.env.workers = True
    data.env.kwargs["longest"] = 40
    with pytest.warns(RuntimeWarning, match="restart 1 of at most 3"):
        fit(SAC(hidden_sizes=[8]), data)
    frames = data.replay.numbered(data.replay.written - len(data.replay), data.replay.written)
    cuts = 0
    for copy in range(2):
        observation, following = (frames[name][copy::2] for name in ("observation", "next.observation"))
        ends = (frames["next.terminated"] | frames["next.truncated"])[copy::2].flatten()
        assert (following[:, 0] == observation[:, 0]).all() and (following[:, 1] == observation[:, 1] + 1).all()
        goes_on = (observation[1:] == following[:-1]).all(-1)
        assert (goes_on == ~ends[:-1]).all()
        early = frames["next.truncated"][copy::2].flatten() & (following[:, 1] < 7)
        cuts += int(early.sum())
    assert cuts >= 1  # the kill did not meet the end of an episode


def test_an_evaluation_is_repeated() -> None:
    metrics = []
    for callbacks in ([], [KillEvaluation()]):
        data = make_data("Pendulum-v1")
        data.env.workers = True
        if callbacks:
            with pytest.warns(RuntimeWarning, match="restart 1 of at most 3"):
                trainer = fit(SAC(hidden_sizes=[8]), data, *callbacks)
        else:
            trainer = fit(SAC(hidden_sizes=[8]), data)
        metrics.append(float(trainer.callback_metrics["eval/return"]))
    assert metrics[0] == metrics[1]


def test_too_many_deaths_are_one_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data.env.name=tests.helpers.toys:Faulty-v0", "--data.env.workers=true"]
    with pytest.warns(RuntimeWarning, match="died with exit code 3"):
        assert main([*FIT, *arguments]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert "died with exit code 3" in line and line.endswith("there is no checkpoint yet")
