"""conf/paper/me_trpo against the table of ME-TRPO's public code (arXiv 1802.10592v2) and the steps of SVG's table 2."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.app.defaults import read_config

FOLDER = Path(__file__).parents[2] / "conf" / "paper" / "me_trpo"


class Task(NamedTuple):
    """Environment, environment steps, steps of an imagined rollout, width of the models."""

    env: str
    steps: int
    horizon: int = 100
    width: int = 1024


TASKS = {
    "ant": Task("poplin/Ant", 200_000),
    "hopper": Task("poplin/Hopper", 200_000),
    "halfcheetah": Task("poplin/HalfCheetah", 200_000),
    "walker2d": Task("poplin/Walker2d", 200_000),
    "swimmer": Task("poplin/Swimmer", 50_000, 200, 512),
    "petscheetah": Task("poplin/PETSCheetah", 50_000),
}


def load(name: str) -> dict[str, Any]:
    return read_config(FOLDER / f"{name}.yaml")


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*TASKS, "common"}


@pytest.mark.parametrize("name", TASKS)
def test_files_equal_the_table(name: str) -> None:
    task, config = TASKS[name], load(name)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model.pop("world_model")["init_args"] == {
        "num_members": 5,
        "num_elites": 5,
        "hidden_sizes": [task.width] * 2,
        "activation": "relu",
        "probabilistic": False,
        "scale_targets": True,
        "weight_decay": [0.0, 0.0, 0.0],
        "lr": 1e-3,
        "propagation": "mean",
        "termination": "known",
    }
    assert model.pop("rollouts") * task.horizon == 50_000
    assert model.pop("holdout_ratio") == pytest.approx(1 / 3, rel=1e-6)
    assert model == {
        "hidden_sizes": [32, 32],
        "horizon": task.horizon,
        "start_states": "initial",
        "reward": "known",
        "gamma": 1.0,
        "lmbda": 1.0,
        "max_kl": 0.01,
        "init_log_std": 0.0,
        "reset_std": True,
        "validation_freq": 5,
        "improvement_share": 0.7,
        "patience": 25,
        "model_batch_size": 1000,
        "model_improvement": 0.0,
        "model_patience": 25,
        "model_max_epochs": 2000,
    }
    assert data == {
        "env": {"name": task.env},
        "total_frames": task.steps,
        "epoch_frames": 10_000,
        "learning_starts": 3000,
        "frames_per_batch": 3000,
        "train_steps_per_collection": 400,
        "capacity": 300_000,
    }


@pytest.mark.parametrize("name", TASKS)
def test_every_file_trains_its_networks(name: str, tmp_path: Path) -> None:
    """The networks at the paper's sizes, in its environments; rollouts, fits and the run are short."""
    options = [
        "--data.total_frames=40",
        "--data.epoch_frames=40",
        "--data.learning_starts=20",
        "--data.frames_per_batch=20",
        "--data.train_steps_per_collection=2",
        "--data.eval_episodes=1",
        "--data.env.max_episode_steps=10",
        "--model.horizon=5",
        "--model.rollouts=4",
        "--model.model_max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.logger=null",
        "--trainer.log_every_n_steps=1",
        "--checkpoint.every_epochs=100",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(["fit", f"--config={FOLDER / name}.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        rounds = [row for row in csv.DictReader(file) if row["policy/kl"]]
    assert [row["time/train_steps"] for row in rounds] == ["1.0", "2.0", "3.0", "4.0"]
    numbers = ["loss/policy", "policy/kl", "policy/expected_improvement", "policy/entropy"]
    assert all(math.isfinite(float(row[name])) for row in rounds for name in numbers)
    assert math.isfinite(float(rounds[0]["model/holdout_dynamics"])) and float(rounds[0]["model/epochs"]) == 1
