"""conf/paper/tdm against the numbers of the public code of temporal difference models (vitchyr/rlkit 0.1.2)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lit_mbrl.app.defaults import read_config
from lit_mbrl.envs import EnvConfig, describe
from tests.helpers.paper_configs import short_run

FOLDER = Path(__file__).parents[2] / "conf" / "paper" / "tdm"


class Task(NamedTuple):
    """Environment, longest horizon, updates per step, steps of an episode, of the run, and of the warm-up."""

    env: str
    max_tau: int
    updates: int
    steps: int
    frames: int
    warm_up: int
    normalize: bool


TASKS = {
    "halfcheetah": Task("tdm/HalfCheetahVelocity", 10, 25, 99, 100 * 1000, 20 * 99, True),
    "ant": Task("tdm/AntPosition", 49, 5, 50, 500 * 1000, 1000, False),
    # Not published: the cheetah's numbers.
    "reacher": Task("tdm/Reacher", 10, 25, 100, 100 * 1000, 20 * 100, True),
    "pusher": Task("tdm/Pusher", 10, 25, 100, 100 * 1000, 20 * 100, True),
}
MODEL: dict[str, Any] = {
    "hidden_sizes": [300, 300],
    "actor_lr": 1e-4,
    "critic_lr": 1e-3,
    "reward_scale": 10,
    "huber_delta": 1.0,
    "exploration": "ou",
    "exploration_sigma": 0.1,
    "ou_theta": 0.1,
}


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*TASKS, "common", "public_code"}


@pytest.mark.parametrize("name", TASKS)
def test_files_equal_the_table(name: str) -> None:
    config, task = read_config(FOLDER / f"{name}.yaml"), TASKS[name]
    model = {**MODEL, "max_tau": task.max_tau} | ({"normalize_observations": True} if task.normalize else {})
    assert config["model"] == {"class_path": "lit_mbrl.algorithms.TDM", "init_args": model}
    data = config["data"]["init_args"]
    assert describe(EnvConfig(**data["env"])).max_episode_steps == task.steps and data["env"]["name"] == task.env
    assert data["hindsight"] == {"strategy": "future", "goals": 3}
    numbers = {key: data[key] for key in ("total_frames", "learning_starts", "utd_ratio", "batch_size", "capacity")}
    assert numbers == {
        "total_frames": task.frames,
        "learning_starts": task.warm_up,
        "utd_ratio": task.updates,
        "batch_size": 128,
        "capacity": 1_000_000,
    }
    assert config["trainer"]["callbacks"] == [
        {"class_path": "lit_mbrl.callbacks.SoftTargetUpdate", "init_args": {"tau": 0.001}}
    ]


@pytest.mark.parametrize("names", [*([name] for name in TASKS), ["ant", "public_code"]], ids="-".join)
def test_every_file_trains_its_networks(names: list[str], tmp_path: Path) -> None:
    """The networks at the paper's sizes, in its environments; the batches and the run are short."""
    rounds = short_run([FOLDER / f"{name}.yaml" for name in names], tmp_path, 42, 40, "--data.utd_ratio=1")
    saved = (tmp_path / "config.yaml").read_text()
    assert ("terminations: horizon" in saved) == ("period: 1000" in saved) == ("public_code" in names)
    assert [row["time/train_steps"] for row in rounds] == ["1.0", "2.0"]
    numbers = ("loss/critic", "loss/actor", "q/mean", "q/target")
    assert all(math.isfinite(float(row[name])) for row in rounds for name in numbers)
