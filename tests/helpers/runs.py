"""Short real runs for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.callbacks.soft_target_update import SoftTargetUpdate
from lit_mbrl.data import OffPolicy, OnPolicy
from lit_mbrl.envs import EnvConfig

SHORT = {"total_frames": 60, "epoch_frames": 20, "learning_starts": 24, "batch_size": 8, "eval_episodes": 2}


class Stop(Exception):
    """Ends a run in the middle, as a kill would."""


class SaveAndStop(Callback):
    """Saves a checkpoint after a given round and stops."""

    def __init__(self, path: Path, rounds: int) -> None:
        self.path, self.rounds = path, rounds

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.train_steps == self.rounds:
            trainer.save_checkpoint(self.path)
            raise Stop


def make_trainer(*callbacks: Callback, period: int = 1, **options: Any) -> Trainer:
    """A quiet trainer on the CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
    }
    return Trainer(callbacks=[SoftTargetUpdate(tau=0.05, period=period), *callbacks], **(defaults | options))


def make_data(env: str = "Pendulum-v1", max_episode_steps: int = 12, num_envs: int = 1, **options: Any) -> OffPolicy:
    """A data module of a few frames, with several episodes."""
    return OffPolicy(EnvConfig(env, max_episode_steps=max_episode_steps, num_envs=num_envs), **(SHORT | options))


def make_rollouts(env: str = "CartPole-v1", max_episode_steps: int = 7, num_envs: int = 2, **options: Any) -> OnPolicy:
    """A data module of three rollouts of 2 x 10 frames, each in two epochs of five minibatches."""
    sizes = {"total_frames": 60, "epoch_frames": 20, "rollout_steps": 10, "num_epochs": 2, "batch_size": 4}
    config = EnvConfig(env, max_episode_steps=max_episode_steps, num_envs=num_envs)
    return OnPolicy(config, **(sizes | {"eval_episodes": 2} | options))


def fit(
    algorithm: Algorithm, data: OffPolicy | OnPolicy, *callbacks: Callback, seed: int = 0, **options: Any
) -> Trainer:
    """Trains; the checkpoint of `options["ckpt_path"]` is resumed from."""
    ckpt_path = options.pop("ckpt_path", None)
    seed_everything(seed, verbose=False)
    trainer = make_trainer(*callbacks, **options)
    try:
        trainer.fit(algorithm, data, ckpt_path=ckpt_path, weights_only=True)
    except BaseException:
        # Lightning has no teardown after an exception, and PyBullet breaks the running simulators when the garbage
        # collector closes a forgotten one at whatever moment.
        data.teardown("fit")
        raise
    return trainer


def everything(algorithm: Algorithm, data: OffPolicy | OnPolicy) -> dict[str, torch.Tensor]:
    """All tensors that a run has produced: weights, statistics, optimisers, replay or the last rollout."""
    state = {f"module.{key}": value for key, value in algorithm.state_dict().items()}
    for i, optimizer in enumerate(algorithm.trainer.optimizers):
        for p, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{p}.{key}": value for key, value in values.items()}
    if isinstance(data, OnPolicy):
        state |= {f"rollout.{key}": value for key, value in data.rollout.items()}
        state["rollout.order"] = data._order
    else:
        replay = data.replay.state_dict()
        state |= {f"replay.{key}": value for key, value in replay["frames"].items()}
        state["replay.cursor"] = torch.tensor(replay["cursor"])
    state["clock"] = torch.tensor([data.env_steps, data.train_steps])
    state["random"] = torch.get_rng_state()
    return state
