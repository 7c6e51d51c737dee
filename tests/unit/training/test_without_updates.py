"""An algorithm whose training steps have no updates: what it learns, it learns around the environment's steps."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.training.algorithm import Algorithm
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data


class Averaging(Algorithm):
    """Acts by the mean of all rewards so far."""

    def build(self, spec: Any) -> None:
        self.action_dim = spec.action_dim
        self.register_buffer("mean", torch.zeros(()))

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.mean.tanh().expand(len(observation), self.action_dim)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        super().after_collect(data, frames)
        self.mean.lerp_(frames["next", "reward"].mean(), 1.0 / data.env_steps)
        self.note({"mean": float(self.mean)})

    def act(self, observation: Tensor) -> Tensor:
        return self.explore(observation, torch.zeros(len(observation), 1, dtype=torch.bool))


class Steps(Callback):
    """Counts training steps and what they read."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.batches.append(batch)


@pytest.mark.parametrize("compile", [False, True])
def test_training_steps_come_and_go_without_batches(compile: bool, tmp_path: Path) -> None:
    algorithm, data, steps = Averaging(compile=compile), make_data(), Steps()
    trainer = fit(algorithm, data, steps, logger=[CsvLogger(tmp_path)])
    assert steps.batches == [{}] * 36 and trainer.global_step == 0
    assert algorithm.mean.item() == pytest.approx(data.replay.frames()["next", "reward"].mean().item(), rel=1e-4)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["mean"]] == ["34", "44", "54"]
    assert len([row for row in rows if row["eval/return"]]) == 2


def test_it_resumes_exactly(tmp_path: Path) -> None:
    whole, data = Averaging(), make_data()
    fit(whole, data)
    with pytest.raises(Stop):
        fit(Averaging(), make_data(), SaveAndStop(tmp_path / "run.ckpt", 9))
    resumed, more = Averaging(), make_data()
    fit(resumed, more, seed=5, ckpt_path=tmp_path / "run.ckpt")
    expected, found = everything(whole, data), everything(resumed, more)
    assert all(torch.equal(expected[key].float(), found[key].float()) for key in expected)
