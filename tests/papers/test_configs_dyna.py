"""conf/paper/mbpo and conf/paper/memr against the tables of the papers and of their public code."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.app.defaults import read_config

PAPER = Path(__file__).parents[2] / "conf" / "paper"


class Task(NamedTuple):
    """A line of MBPO's table: environment, updates per step, target entropy, schedule, retained epochs, fit period."""

    env: str
    updates: int
    entropy: float
    schedule: list[int]
    retain: int
    period: int
    width: int = 200
    epoch: int = 1000
    warmup: int = 5000


# MBPO's public code, examples/config/*/0.py; Humanoid's schedule is the paper's.
MBPO = {
    "hopper": Task("mbpo/Hopper", 20, -1, [20, 150, 1, 15], 1, 250),
    "walker2d": Task("mbpo/Walker2d", 20, -3, [20, 150, 1, 1], 1, 250),
    "halfcheetah": Task("mbpo/HalfCheetah", 40, -3, [20, 150, 1, 1], 1, 250),
    "ant": Task("mbpo/AntTruncatedObs", 20, -4, [20, 100, 1, 25], 1, 250),
    "humanoid": Task("mbpo/HumanoidTruncatedObs", 20, -2, [20, 300, 1, 25], 5, 1000, width=400),
    "inverted_pendulum": Task("InvertedPendulum-v5", 10, -0.05, [1, 15, 1, 1], 1, 250, epoch=250, warmup=500),
}
MEMR = ["hopper", "walker2d", "halfcheetah", "ant"]
ENSEMBLE = {
    "num_members": 7,
    "num_elites": 5,
    "activation": "swish",
    "weight_decay": [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4],
    "lr": 1e-3,
    "termination": "known",
}


def load(paper: str, name: str) -> dict[str, Any]:
    return read_config(PAPER / paper / f"{name}.yaml")


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in (PAPER / "mbpo").glob("*.yaml")} == {*MBPO, "common"}
    assert {path.stem for path in (PAPER / "memr").glob("*.yaml")} == {*MEMR, "common", "public_code"}


@pytest.mark.parametrize("name", MBPO)
def test_mbpo_s_files_equal_the_table(name: str) -> None:
    task, config = MBPO[name], load("mbpo", name)
    assert config["model"]["init_args"] == {
        "world_model": {
            "class_path": "lit_mbrl.models.EnsembleConfig",
            "init_args": {**ENSEMBLE, "hidden_sizes": [task.width] * 4},
        },
        "model_train_freq": task.period,
        "rollout_batch_size": 100_000,
        "rollout_schedule": task.schedule,
        "model_epoch": task.epoch,
        "retain_epochs": task.retain,
        "real_ratio": 0.05,
        "model_batch_size": 256,
        "holdout_ratio": 0.2,
        "max_holdout": 5000,
        "model_improvement": 0.01,
        "model_patience": 5,
        "hidden_sizes": [256, 256],
        "gamma": 0.99,
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "alpha_lr": 3e-4,
        "init_alpha": 1.0,
        "target_entropy": task.entropy,
        "log_std_bounds": [-20.0, 2.0],
        "log_std_squash": "clamp",
    }
    data = config["data"]["init_args"]
    assert data.pop("total_frames") >= task.warmup + 80 * task.epoch
    assert data == {
        "env": {"name": task.env},
        "epoch_frames": task.epoch,
        "eval_episodes": 1,
        "learning_starts": task.warmup,
        "utd_ratio": task.updates,
        "batch_size": 256,
        "capacity": 1_000_000,
    }
    (target,) = config["trainer"]["callbacks"]
    assert target["init_args"] == {"tau": 0.005, "period": 1}


@pytest.mark.parametrize("name", MEMR)
def test_memr_s_files_are_its_code_s_with_a_quarter_of_mbpo_s_updates(name: str) -> None:
    task, config = MBPO[name], load("memr", name)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert data["utd_ratio"] == task.updates / 4
    assert model["rollout_batch_size"] == 400 * model["rollout_freq"] == 20_000
    assert model["segments"] * model["rollout_batch_size"] == 1_000_000
    assert data["env"] == {"name": task.env} and data["batch_size"] == 4000 and model["real_ratio"] == 0
    assert model["world_model"]["init_args"]["hidden_sizes"] == [512] * 4
    assert (model["variant"], model["priority_exponent"], model["weight_exponent"]) == ("paper", 0.6, [0.4, 1.0])
    assert (model["model_batch_size"], model["holdout_ratio"], model["model_max_epochs"]) == (512, 0.1, 100)
    dims = {"hopper": 3, "walker2d": 6, "halfcheetah": 6, "ant": 8}
    assert model["target_entropy"] == -(dims[name] // 2)


@pytest.mark.parametrize(
    "names",
    [
        *(["mbpo", name] for name in MBPO),
        *(["memr", name] for name in MEMR),
        ["memr", "hopper", "public_code"],
    ],
    ids="-".join,
)
def test_every_file_trains_its_networks(names: list[str], tmp_path: Path) -> None:
    """The networks at the papers' sizes, in their environments; the batches, fits and the run are short."""
    paper, *files = names
    options = [
        "--data.total_frames=33",
        "--data.epoch_frames=33",
        "--data.learning_starts=30",
        "--data.batch_size=8",
        "--data.frames_per_batch=1",
        "--data.utd_ratio=1",
        "--model.rollout_batch_size=50",
        "--data.eval_episodes=1",
        "--data.env.max_episode_steps=10",
        "--model.model_max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.logger=null",
        "--trainer.log_every_n_steps=1",
        "--checkpoint.every_epochs=100",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(["fit", *[f"--config={PAPER / paper / name}.yaml" for name in files], *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        rounds = [row for row in csv.DictReader(file) if row["loss/critic"]]
    assert [row["time/train_steps"] for row in rounds] == ["1.0", "2.0", "3.0"]
    numbers = ["loss/critic", "loss/actor", "loss/alpha", "q/mean"]
    assert all(math.isfinite(float(row[name])) for row in rounds for name in numbers)
    assert math.isfinite(float(rounds[0]["model/holdout_dynamics"])) and float(rounds[0]["model/epochs"]) == 1
