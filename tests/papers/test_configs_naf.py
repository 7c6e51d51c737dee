"""conf/paper/naf against the numbers that the paper prints (Gu et al. 2016, arXiv 1603.00748v1), typed in once here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lit_mbrl.app.defaults import read_config
from lit_mbrl.utils.yaml import read_yaml
from tests.helpers.command_line import rows
from tests.helpers.paper_configs import short_run

FOLDER = Path(__file__).parents[2] / "conf" / "paper" / "naf"

# Of the paper's ten tasks, those that have a relative here.
TASKS = {
    "cartpole": "dmc/cartpole-swingup",
    "reacher": "Reacher-v5",
    "cheetah": "HalfCheetah-v5",
    "swimmer6": "dmc/swimmer-swimmer6",
    "ant": "Ant-v5",
    "walker2d": "Walker2d-v5",
}
WIDTH, UPDATES = 200, 5  # section 6
LEARNING_RATE, NOISE = 1e-3, 0.3  # section 8.6
LENGTH, EPISODES, SWITCH_OFF = 10, 5, 20_000  # figure 2, section 5.3, section 6.3
DDPG = {
    "tau": 1e-3,
    "gamma": 0.99,
    "batch_size": 64,
    "capacity": 1_000_000,
    "ou_theta": 0.15,
}  # arXiv 1509.02971, section 7


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*TASKS, "common", "imagination"}


@pytest.mark.parametrize("name", TASKS)
def test_files_equal_the_numbers(name: str) -> None:
    config = read_config(FOLDER / f"{name}.yaml")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert config["model"]["class_path"] == "lit_mbrl.algorithms.NAF"
    assert model == {
        "hidden_sizes": [WIDTH, WIDTH],
        "gamma": DDPG["gamma"],
        "lr": LEARNING_RATE,
        "exploration": "ou",
        "exploration_sigma": NOISE,
        "ou_theta": DDPG["ou_theta"],
    }
    assert data["env"] == {"name": TASKS[name]}
    assert data["utd_ratio"] == UPDATES
    assert (data["batch_size"], data["capacity"]) == (DDPG["batch_size"], DDPG["capacity"])
    (target,) = config["trainer"]["callbacks"]
    assert target == {"class_path": "lit_mbrl.callbacks.SoftTargetUpdate", "init_args": {"tau": DDPG["tau"]}}


def test_imagination_adds_its_own_numbers() -> None:
    assert read_yaml(FOLDER / "imagination.yaml", "config") == {
        "model": {
            "init_args": {"rollout_length": LENGTH, "episodes_per_fit": EPISODES, "imagination_steps": SWITCH_OFF}
        },
        "data": {"init_args": {"utd_ratio": UPDATES * (1 + LENGTH)}},
    }


@pytest.mark.parametrize("names", [*([name] for name in TASKS), ["reacher", "imagination"]], ids="-".join)
def test_every_file_trains_its_networks(names: list[str], tmp_path: Path) -> None:
    """The networks at the paper's sizes, in its environments; the batches and the run are short."""
    options = ["--model.episodes_per_fit=3"] * ("imagination" in names)
    trained = short_run([FOLDER / f"{name}.yaml" for name in names], tmp_path, 32, 30, *options)
    losses = [float(row["loss/critic"]) for row in trained]
    assert len(losses) == 2 * UPDATES  # of both environment steps, on real batches
    assert all(map(math.isfinite, losses))
    imagined = 8 * LENGTH if "imagination" in names else 0  # once, from eight states
    assert float(rows(tmp_path)[-1].get("time/model_rollouts") or 0) == imagined
