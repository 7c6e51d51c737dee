"""conf/fruitbot and conf/paper/fruitbot against the report's section 5 and Procgen's own code."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lit_mbrl import algorithms
from lit_mbrl.app.cli import CONF, main
from lit_mbrl.app.defaults import read_config
from lit_mbrl.data import OnPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.networks import ImpalaEncoder

# Agent -> class and what is its own (section 5: the best coefficients).
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("PPO", {}),
    "entropy_bonus": ("EntropyBonusPPO", {"bonus_coeff": 0.01}),
    "max_entropy": ("MaxEntPPO", {"entropy_coeff": 0.3}),
    "combined": ("MaxEntBonusPPO", {"entropy_coeff": 0.3, "bonus_coeff": 0.01}),
}
# openai/train-procgen, train.py, with the 1/2 of its value loss in the coefficient.
TRAIN_PROCGEN = {
    "encoder": {"features": 256, "channels": [16, 32, 32]},
    "gamma": 0.999,
    "lmbda": 0.95,
    "lr": 5e-4,
    "clip_range": 0.2,
    "value_clip_range": 0.2,
    "value_coeff": 0.25,
    "max_grad_norm": 0.5,
    "scale_rewards": True,
}
FOLDERS = {"laptop": CONF / "fruitbot", "paper": CONF / "paper" / "fruitbot"}
ENV = {
    "name": "procgen/fruitbot-easy",
    "kwargs": {"num_levels": 500, "start_level": 0},
    "eval_kwargs": {"num_levels": 500, "start_level": 500},
}


def load(path: Path) -> dict[str, Any]:
    return read_config(path)


def test_every_agent_has_its_files_and_every_file_its_agent() -> None:
    assert {path.stem for path in FOLDERS["laptop"].glob("*.yaml")} == {*AGENTS, "common"}
    assert {path.stem for path in FOLDERS["paper"].glob("*.yaml")} == {*AGENTS, "common", "tuning"}


@pytest.mark.parametrize("size", FOLDERS)
@pytest.mark.parametrize("agent", AGENTS)
def test_agents_differ_in_their_entropy_alone(agent: str, size: str) -> None:
    name, own = AGENTS[agent]
    config = load(FOLDERS[size] / f"{agent}.yaml")
    assert config["model"] == {"class_path": name, "init_args": own | TRAIN_PROCGEN}
    assert config["data"] == load(FOLDERS[size] / "ppo.yaml")["data"]
    assert config["trainer"] == load(FOLDERS[size] / "ppo.yaml")["trainer"]


def test_the_paper_s_sizes() -> None:
    data = load(FOLDERS["paper"] / "ppo.yaml")["data"]["init_args"]
    assert data["env"] == ENV | {"num_envs": 64}
    assert data["total_frames"] == 2_000_000 and data["rollout_steps"] == 256 and data["num_epochs"] == 3
    assert 64 * 256 / data["batch_size"] == 8  # minibatches
    laptop = load(FOLDERS["laptop"] / "ppo.yaml")["data"]["init_args"]
    assert laptop["env"] == ENV | {"num_envs": 16} and laptop["total_frames"] == 250_000
    assert 16 * 256 / laptop["batch_size"] == 8


def test_tuning_is_on_100_levels_in_hard_mode() -> None:
    env = load(FOLDERS["paper"] / "tuning.yaml")["data"]["init_args"]["env"]
    assert env == {"name": "procgen/fruitbot-hard", "kwargs": {"num_levels": 100, "start_level": 0}}


@pytest.mark.parametrize("size", FOLDERS)
@pytest.mark.parametrize("agent", AGENTS)
def test_classes_accept_the_values(agent: str, size: str) -> None:
    config = load(FOLDERS[size] / f"{agent}.yaml")
    options = dict(config["model"]["init_args"])
    options["encoder"] = ImpalaEncoder(**options["encoder"])
    getattr(algorithms, config["model"]["class_path"])(**options)
    data = dict(config["data"]["init_args"])
    OnPolicy(**(data | {"env": EnvConfig(**data["env"])}))


@pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="Procgen is not installed: pip install '.[procgen]', Qt 5"
)
@pytest.mark.parametrize(
    "names",
    [*([f"fruitbot/{agent}"] for agent in AGENTS), ["paper/fruitbot/max_entropy", "paper/fruitbot/tuning"]],
    ids="-".join,
)
def test_every_file_trains_its_networks(names: list[str], tmp_path: Path) -> None:
    """The networks at their sizes, in their environments; the rollouts and the run are short."""
    files = [argument for name in names for argument in ("--config", str(CONF / f"{name}.yaml"))]
    options = [
        "--data.total_frames=32",
        "--data.epoch_frames=32",
        "--data.env.num_envs=4",
        "--data.env.max_episode_steps=20",
        "--data.rollout_steps=8",
        "--data.num_epochs=1",
        "--data.batch_size=8",
        "--data.eval_episodes=2",
        "--trainer.accelerator=cpu",
        "--trainer.logger=null",
        "--trainer.log_every_n_steps=4",
        "--num_threads=1",
    ]
    assert main(["fit", *files, *options, f"--trainer.default_root_dir={tmp_path}"]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for metric in ("eval/return", "eval/train_levels_return", "policy/entropy", "loss/ppo"):
        assert [row[metric] for row in rows if row[metric]], metric
