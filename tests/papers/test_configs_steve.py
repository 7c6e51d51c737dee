"""conf/paper/steve against the table of STEVE's public code (tensorflow/models, research/steve/config)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lit_mbrl.app.defaults import read_config
from lit_mbrl.utils.yaml import read_yaml
from tests.helpers.paper_configs import short_run

FOLDER = Path(__file__).parents[2] / "conf" / "paper" / "steve"

# The paper's MuJoCo and Box2D tasks; what it has of Roboschool no longer installs.
TASKS = {
    "halfcheetah": "mbpo/HalfCheetah",
    "hopper": "mbpo/Hopper",
    "walker2d": "mbpo/Walker2d",
    "swimmer": "Swimmer-v5",
    "humanoid": "Humanoid-v5",
    "hardcore": "BipedalWalkerHardcore-v3",
}
LAYERS, TRANSITION_LAYERS, WIDTH, TRANSITION_WIDTH = 4, 8, 128, 512  # the code's layers count the last one
MODEL = {
    "horizon": 3,
    "num_critics": 4,
    "member_data": "shares",
    "world_model": {
        "class_path": "lit_mbrl.models.SplitEnsembleConfig",
        "init_args": {
            "num_transitions": 4,
            "num_rewards": 4,
            "hidden_sizes": [TRANSITION_WIDTH] * (TRANSITION_LAYERS - 1),
            "head_sizes": [WIDTH] * (LAYERS - 1),
            "lr": 3e-4,
            "weight_decay": 1e-4,
            "termination": "learned",
        },
    },
    "pretrain_updates": 10_000,
    "exploration_chance": 0.05,
    "action_penalty": 1e-3,
    "hidden_sizes": [WIDTH] * (LAYERS - 1),
    "gamma": 0.99,
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
}
FRAMES_PER_UPDATE = 0.25


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*TASKS, "common", "mve", "ddpg"}


@pytest.mark.parametrize("name", TASKS)
def test_files_equal_the_table(name: str) -> None:
    config = read_config(FOLDER / f"{name}.yaml")
    assert config["model"] == {"class_path": "lit_mbrl.algorithms.STEVE", "init_args": MODEL}
    assert config["data"]["init_args"] == {
        "env": {"name": TASKS[name], "num_envs": 8, "max_episode_steps": 1000},
        "total_frames": 1_000_000,
        "epoch_frames": 5_000,
        "frames_per_batch": 8,
        "learning_starts": 10_000,
        "utd_ratio": 1 / FRAMES_PER_UPDATE,
        "batch_size": 512,
        "capacity": 1_000_000,
        "eval_episodes": 10,
    }
    (target,) = config["trainer"]["callbacks"]
    assert target == {"class_path": "lit_mbrl.callbacks.SoftTargetUpdate", "init_args": {"tau": 1.0, "period": 500}}


def test_the_baselines_differ_in_the_expansion_alone() -> None:
    single = {"init_args": {"num_transitions": 1, "num_rewards": 1}}
    mve, ddpg = (read_yaml(FOLDER / f"{name}.yaml", "config") for name in ("mve", "ddpg"))
    assert mve == {
        "model": {
            "class_path": "lit_mbrl.algorithms.MVEDDPG",
            "init_args": {"horizon": 3, "td_k": True, "world_model": single},
        }
    }
    assert ddpg == {"model": {"init_args": {"horizon": 0, "num_critics": 1}}}


@pytest.mark.parametrize("names", [*([name] for name in TASKS), ["hopper", "mve"], ["hopper", "ddpg"]], ids="-".join)
def test_every_file_trains_its_networks(names: list[str], tmp_path: Path) -> None:
    """The networks at the paper's sizes, in its environments; the batches and the run are short."""
    options = ["--data.utd_ratio=0.25", "--model.pretrain_updates=2"]
    rounds = short_run([FOLDER / f"{name}.yaml" for name in names], tmp_path, 48, 40, *options)
    assert [row["time/train_steps"] for row in rounds] == ["1.0", "2.0"]
    numbers = {"loss/critic", "loss/actor", "q/mean"}
    if "ddpg" not in names:
        numbers |= {"loss/dynamics", "loss/reward", "loss/termination"}
    if len(names) == 1:
        numbers |= {f"target/{kind}_{i}" for kind in ("weight", "variance") for i in range(4)}
    assert all(math.isfinite(float(row[name])) for row in rounds for name in numbers)
    assert "target/weight_1" not in rounds[0] or len(names) == 1
