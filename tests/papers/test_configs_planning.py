"""conf/paper/pets and conf/paper/poplin against the numbers of the paper's public code, typed in once here."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lit_mbrl.app.cli import main
from lit_mbrl.app.defaults import read_config
from lit_mbrl.envs import EnvConfig, describe

PAPER = Path(__file__).parents[2] / "conf" / "paper"


class Task(NamedTuple):
    """A task of PETS: environment, steps of a trial, trials, horizon, candidates, elites, networks, decay, rate."""

    env: str
    steps: int
    trials: int
    horizon: int
    candidates: int
    elites: int
    hidden: list[int]
    decay: list[float]
    lr: float


PETS = {
    "cartpole": Task("pets/CartPole", 200, 50, 25, 400, 40, [500] * 3, [1e-4, 2.5e-4, 2.5e-4, 5e-4], 1e-3),
    "reacher": Task("pets/Reacher", 150, 100, 25, 400, 40, [200] * 4, [2.5e-4, 5e-4, 5e-4, 5e-4, 7.5e-4], 7.5e-4),
    "pusher": Task("pets/Pusher", 150, 100, 25, 500, 50, [200] * 3, [2.5e-4, 5e-4, 5e-4, 7.5e-4], 1e-3),
    "halfcheetah": Task(
        "pets/HalfCheetah", 1000, 300, 30, 500, 50, [200] * 4, [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4], 1e-3
    ),
}


def load(paper: str, name: str) -> dict[str, Any]:
    return read_config(PAPER / paper / f"{name}.yaml")


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    assert {path.stem for path in (PAPER / "pets").glob("*.yaml")} == {*PETS, "common"}


@pytest.mark.parametrize("name", PETS)
def test_pets_files_equal_the_table(name: str) -> None:
    task, config = PETS[name], load("pets", name)
    sizes = {"horizon": task.horizon, "num_candidates": task.candidates, "num_elites": task.elites, "iterations": 5}
    assert config["model"]["init_args"] == {
        "propagation": "TSinf",
        "particles": 20,
        "num_members": 5,
        "activation": "swish",
        "model_batch_size": 32,
        "model_epochs": 5,
        "reward": "known",
        "hidden_sizes": task.hidden,
        "weight_decay": task.decay,
        "model_lr": task.lr,
        "planner": {
            "class_path": "lit_mbrl.planners.TruncatedCEM",
            "init_args": {**sizes, "momentum": 0.1, "init_std": 0.5},  # a variance of (high - low)^2 / 16
        },
    }
    data = config["data"]["init_args"]
    assert data["learning_starts"] == task.steps == describe(EnvConfig(**data["env"])).max_episode_steps
    assert data["total_frames"] == task.steps * (task.trials + 1)
    assert data["env"] == {"name": task.env} and data["epoch_frames"] % task.steps == 0


# POPLIN's methods: class, variance of the first candidates, the rest of what differs.
METHODS = {
    "pets": ("PETS", 0.25, {}),
    "a_init": ("POPLINA", 0.25, {"method": "INIT", "policy_hidden_sizes": [64, 64]}),
    "a_replan": ("POPLINA", 0.25, {"method": "REPLAN", "policy_hidden_sizes": [64, 64]}),
    "p_sep_avg": ("POPLINP", 0.1, {"method": "SEP", "distillation": "AVG", "policy_hidden_sizes": [32]}),
    "p_uni_avg": ("POPLINP", 0.1, {"method": "UNI", "distillation": "AVG", "policy_hidden_sizes": [32]}),
    "p_sep_bc": ("POPLINP", 0.03, {"method": "SEP", "distillation": "BC", "policy_hidden_sizes": [32]}),
    "p_uni_bc": ("POPLINP", 0.03, {"method": "UNI", "distillation": "BC", "policy_hidden_sizes": [32]}),
}
CLONING = {
    "policy_lr": 3e-3,
    "policy_epochs": 100,
    "policy_batch_size": 64,
    "policy_weight_decay": 1e-5,
    "policy_holdout": 0.2,
}
# Table 2 of the SVG paper: the tasks and their timesteps.
STEPS = {"Ant": 200, "Hopper": 200, "HalfCheetah": 200, "Walker2d": 200, "Swimmer": 50, "PETSCheetah": 50}


def test_poplin_has_a_file_of_each_method_and_task() -> None:
    found = {path.stem for path in (PAPER / "poplin").glob("*.yaml")}
    assert found == {*METHODS, *map(str.lower, STEPS), "common"}
    for task, thousands in STEPS.items():
        expected = {"env": {"name": f"poplin/{task}"}, "total_frames": 1000 * thousands}
        assert load("poplin", task.lower()) == {"data": {"init_args": expected}}


@pytest.mark.parametrize("name", METHODS)
def test_poplin_s_methods_equal_the_table(name: str) -> None:
    kind, variance, own = METHODS[name]
    config = load("poplin", name)
    assert config["model"]["class_path"] == f"lit_mbrl.algorithms.{kind}"
    options = config["model"]["init_args"]
    search = options.pop("planner")["init_args"]
    assert search.pop("init_std") ** 2 == pytest.approx(variance, abs=1e-6)
    assert search.pop("bound") == (1.0 if kind == "PETS" else None)
    assert search.pop("min_variance") == (0 if kind == "POPLINP" else 1e-3)  # POPLIN-P never stops early
    sizes = {"horizon": 30, "num_candidates": 500, "num_elites": 50, "iterations": 5, "momentum": 0.1}
    assert search == sizes
    cloning = CLONING if own.get("distillation") == "BC" or kind == "POPLINA" else {}
    assert options == {
        "propagation": "E",
        "num_members": 5,
        "hidden_sizes": [200] * 4,
        "activation": "swish",
        "weight_decay": PETS["halfcheetah"].decay,
        "model_lr": 1e-3,
        "model_batch_size": 32,
        "model_epochs": 5,
        "reward": "known",
        **own,
        **cloning,
    }
    assert config["data"]["init_args"]["learning_starts"] == 1000


def test_pilco_s_file_equals_the_table() -> None:
    """The paper: 50 basis functions, 4 s; public code: a random trial and 15 more, width 0.25, starts within 0.1."""
    config = load("pilco", "cartpole")
    options, data = config["model"]["init_args"], config["data"]["init_args"]
    assert options["num_basis"] == 50 and options["policy"] == "rbf" and options["cost"]["width"] == 0.25
    assert options["initial_std"] == [0.1] * 4 and options["initial_mean"] == [0] * 4
    assert options["policy_iterations"] == 150 and options["policy_restarts"] == options["first_restarts"] == 1
    decision = data["env"]["action_repeat"] * 0.04
    assert options["horizon"] * decision == pytest.approx(4.0)
    steps = describe(EnvConfig(**data["env"])).max_episode_steps
    assert steps == options["horizon"] == data["learning_starts"] and data["total_frames"] == steps * 16


RUNS = [
    *([f"pets/{name}"] for name in PETS),
    *([f"poplin/{method}", "poplin/swimmer"] for method in METHODS),
    *(["poplin/p_sep_avg", f"poplin/{task.lower()}"] for task in STEPS),
]


@pytest.mark.parametrize("names", RUNS, ids="+".join)
def test_every_file_plans_and_fits(names: list[str], tmp_path: Path) -> None:
    """The networks at the paper's sizes, in its environments; the searches and the run are short."""
    options = [
        "--data.total_frames=20",
        "--data.epoch_frames=20",
        "--data.learning_starts=10",
        "--data.eval_episodes=1",
        "--data.env.max_episode_steps=10",
        "--model.planner.horizon=3",
        "--model.planner.num_candidates=10",
        "--model.planner.num_elites=3",
        "--model.planner.iterations=2",
        "--trainer.accelerator=cpu",
        "--trainer.logger=null",
        "--trainer.log_every_n_steps=1",
        "--checkpoint.every_epochs=100",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(["fit", *(f"--config={PAPER / name}.yaml" for name in names), *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        found = [row for row in csv.DictReader(file) if row["plan/cost"]]
    assert len(found) == 10 and all(math.isfinite(float(row["plan/cost"])) for row in found)
    assert math.isfinite(float(found[-1]["model/holdout_nll"]))  # of the trial that has ended


def test_pilco_s_file_learns(tmp_path: Path) -> None:
    options = [
        "--data.total_frames=30",
        "--data.epoch_frames=15",
        "--data.learning_starts=10",
        "--data.eval_episodes=1",
        "--data.env.max_episode_steps=10",
        "--model.horizon=5",
        "--model.policy_iterations=2",
        "--model.model_iterations=5",
        "--trainer.logger=null",
        "--trainer.log_every_n_steps=5",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    assert main(["fit", f"--config={PAPER / 'pilco/cartpole'}.yaml", *options]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        found = [float(row["policy/realised_cost"]) for row in csv.DictReader(file) if row["policy/realised_cost"]]
    assert len(found) == 4 and all(0 < cost < 1.1 for cost in found)
