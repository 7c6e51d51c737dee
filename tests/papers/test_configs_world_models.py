"""conf/paper/world_models against the numbers of the paper (arXiv 1803.10122v4) and its public code."""

from __future__ import annotations

from pathlib import Path

from lit_mbrl.app.defaults import read_config

FOLDER = Path(__file__).parents[2] / "conf" / "paper" / "world_models"


def test_car_racing_equals_the_table() -> None:
    config = read_config(FOLDER / "car_racing.yaml")
    data = config["data"]["init_args"]
    assert config["model"]["init_args"] == {
        **{"collect_policy": "random_networks", "latent": 32, "depth": 32, "vae_steps": 10 * 10_000 * 1_000 // 100},
        **{"vae_batch_size": 100, "vae_lr": 1e-4, "kl_tolerance": 0.5, "hidden": 256, "mixtures": 5},
        **{"rnn_steps": 4_000, "rnn_lr": 1e-3, "rnn_max_grad_norm": 1.0, "train_in": "environment"},
        **{"generations": 1_800, "population": 64, "episodes": 16, "sigma": 0.1, "weight_decay": 0.01},
        **{"controller_envs": 64, "epochs_per_stage": 1_800 // 25},
    }
    assert data["total_frames"] == 10_000 * 1_000
    assert (data["batch_size"], data["sequence_length"], data["eval_episodes"]) == (100, 999 + 1, 64 * 16)
    assert data["env"]["name"] == "world_models/CarRacing"
