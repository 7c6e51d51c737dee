"""conf/paper/dreamer and conf/paper/planet against the numbers of the papers and public codes, typed in once here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import main
from lit_mbrl.app.defaults import read_config

PAPER = Path(__file__).parents[2] / "conf" / "paper"
AGENTS = {
    "dreamer": "Dreamer",
    "revised_dreamer": "RevisedDreamer",
    "maxent_dreamer": "MaxEntDreamer",
    "dreamer_exploration": "MaxEntExploration",
}
PYBULLET = {"walker2d": "Walker2D", "hopper": "Hopper", "ant": "Ant", "halfcheetah": "HalfCheetah"}
# PlaNet's action repeats.
DMC = {
    "dmc/cartpole-swingup": 8,
    "dmc/reacher-easy": 4,
    "dmc/cheetah-run": 4,
    "dmc/finger-spin": 2,
    "dmc/ball_in_cup-catch": 4,
    "dmc/walker-walk": 2,
}
DREAMER = {"deter": 200, "hidden": 200, "depth": 32, "units": 400, "horizon": 15, "gamma": 0.99, "lmbda": 0.95}
DREAMER |= {"model_lr": 6e-4, "actor_lr": 8e-5, "critic_lr": 8e-5, "adam_eps": 1e-7, "max_grad_norm": 100.0}
DREAMER |= {"reward_layers": 2, "actor_layers": 4, "critic_layers": 3, "free_nats": 3.0, "init_std": 5.0}
V1 = {"stoch": 30, "kl_scale": 1.0, "time_order": "act_first", "termination": False}
REVISED = {"stoch": 128, "kl_scale": 0.1, "jeffreys_scale": 0.1, "time_order": "observe_first", "termination": True}
DENSITY = {"entropy_coeff": 0.2, "entropy_gamma": 0.9, "density_heads": 8, "density_units": 256, "density_lr": 2e-4}


def load(folder: str, name: str) -> dict[str, Any]:
    return read_config(PAPER / folder / f"{name}.yaml")


def test_there_is_a_file_for_every_agent_and_task() -> None:
    assert {path.stem for path in (PAPER / "dreamer").glob("*.yaml")} == {*AGENTS, *PYBULLET}
    tasks = [load("planet", path.stem)["data"]["init_args"]["env"] for path in (PAPER / "planet").glob("*_*.yaml")]
    single = {task["name"]: task["action_repeat"] for task in tasks if "other_tasks" not in task}
    (six,) = [task for task in tasks if "other_tasks" in task]
    assert single == DMC == {six["name"]: six["action_repeat"]} | six["other_tasks"] and six["num_envs"] == 6


@pytest.mark.parametrize("name", AGENTS)
def test_agents_have_the_papers_numbers(name: str) -> None:
    config = load("dreamer", name)
    model, data = config["model"], config["data"]["init_args"]
    assert model["class_path"] == f"lit_mbrl.algorithms.{AGENTS[name]}"
    expected = DREAMER | (REVISED if "Revised" in AGENTS[name] or name == "maxent_dreamer" else V1)
    if "MaxEnt" in AGENTS[name]:
        expected |= DENSITY | {"exploration_sigma": 0.0}
        target, annealing = (callback["init_args"] for callback in config["trainer"]["callbacks"])
        assert target == {"tau": 0.1}
        assert (annealing["initial"], annealing["final"], annealing["form"]) == (0.2, 1e-4, "linear")
        assert annealing["schedule_steps"] == data["total_frames"]
    else:
        expected |= {"exploration_sigma": 0.3}
    assert {key: model["init_args"].get(key) for key in expected} == expected
    # 5 000 random frames, then 100 updates every 1 000 frames of two each
    assert (data["batch_size"], data["sequence_length"], data["pretrain_steps"]) == (50, 50, 100)
    assert 2 * data["learning_starts"] == 5_000 and 2 * data["frames_per_batch"] == 1_000
    assert data["utd_ratio"] * data["frames_per_batch"] == 100


@pytest.mark.parametrize("task", [path.stem for path in sorted((PAPER / "planet").glob("[!s]*_*.yaml"))])
def test_planet_takes_100_updates_after_each_episode(task: str) -> None:
    data = load("planet", task)["data"]["init_args"]
    steps = 1000 // data["env"]["action_repeat"]
    assert data["frames_per_batch"] == steps and data["learning_starts"] == 5 * steps
    assert data["utd_ratio"] * steps == pytest.approx(100)
    assert data["total_frames"] == 1000 * steps


@pytest.mark.parametrize(
    "names",
    [("dreamer/maxent_dreamer", f"dreamer/{task}") for task in PYBULLET] + [("planet/six_tasks",)],
)
def test_an_agent_and_a_task_make_a_run(names: tuple[str, ...], capfd: pytest.CaptureFixture) -> None:
    arguments = [f"--config={PAPER / name}.yaml" for name in names]
    assert main(["fit", *arguments, "--print_config"]) == 0
    config = yaml.safe_load(capfd.readouterr().out)
    env = config["data"]["init_args"]["env"]
    assert env["name"] == load(*names[-1].split("/"))["data"]["init_args"]["env"]["name"]
    assert env["pixels"]["size"] == 64 and config["data"]["init_args"]["storage"] == "memmap"
