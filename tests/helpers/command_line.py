"""The command line as tests use it: in this process, with runs of a second."""

from __future__ import annotations

import csv
import os
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.algorithms import PPO
from lit_mbrl.app.cli import CONF
from tests.helpers.runs import fit, make_rollouts

TINY = [
    "--data.total_frames=60",
    "--data.learning_starts=20",
    "--data.epoch_frames=20",
    "--data.eval_episodes=1",
    "--data.env.max_episode_steps=20",
    "--data.batch_size=8",
    "--model.hidden_sizes=[8,8]",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=10",
]
# The same for rollouts: three, each of 20 frames and 10 rounds.
_ROLLOUTS = ["--data.env.num_envs=2", "--data.rollout_steps=10", "--data.num_epochs=2", "--data.batch_size=4"]
_OFF_POLICY = ("--data.learning_starts", "--data.batch_size")
TINY_ON_POLICY = [option for option in TINY if not option.startswith(_OFF_POLICY)] + _ROLLOUTS
# The same for A2C, which takes one step on a whole rollout: thirty rollouts of two frames.
_WHOLE = ("--data.rollout_steps=", "--data.num_epochs=", "--data.batch_size=")
TINY_A2C = [option for option in TINY_ON_POLICY if not option.startswith(_WHOLE)]
TINY_A2C += ["--data.rollout_steps=1", "--data.num_epochs=1", "--data.batch_size=2"]
# The same for I2A's four stages, on the images of its config, or others.
TINY_I2A = [
    *(option for option in TINY_A2C if not option.startswith(("--model.", "--trainer.log_"))),
    "--trainer.log_every_n_steps=3",
    "--model.model_free_frames=20",
    "--model.data_frames=20",
    "--model.model_steps=3",
    "--model.model_batch_size=4",
    "--model.frame_model={channels: 2, wide: 1, narrow: 1, kernel: 3}",
    "--model.encoder={convolutions: [2], units: 4}",
    *(f"--model.{size}=2" for size in ("depth", "rollout_channels", "encoding", "units", "policy_channels")),
]
# The same for models with a latent state, on the pictures of their configs.
TINY_LATENT = [
    *(option for option in TINY if not option.startswith(("--model.", "--data.batch_size=", "--trainer.log_"))),
    "--trainer.log_every_n_steps=3",
    "--data.frames_per_batch=4",
    "--data.pretrain_steps=1",
    "--data.batch_size=4",
    "--data.sequence_length=4",
    "--model.depth=2",
    *(f"--model.{size}=8" for size in ("deter", "stoch", "hidden", "units")),
]
TINY_PLANNER = ["--model.planner.num_candidates=8", "--model.planner.num_elites=2", "--model.planner.iterations=2"]
# The same for collections of 20 frames, each followed by 10 rounds of imagined rollouts.
TINY_SWEEPS = [
    *(option for option in TINY if not option.startswith("--model.")),
    "--data.env.num_envs=1",
    "--model.validation_rollouts=5",
    "--data.frames_per_batch=20",
    "--data.train_steps_per_collection=10",
    "--model.hidden_sizes=[8]",
    "--model.world_model.hidden_sizes=[8]",
    "--model.world_model.weight_decay=[0,0]",
    "--model.horizon=10",
    "--model.rollouts=5",
    "--model.model_max_epochs=2",
]
# The same for planners over an ensemble, whose horizon has to be shorter than the episodes.
TINY_PLANNING = [*TINY_PLANNER, "--model.planner.horizon=5", "--model.model_epochs=2"]
# The same for dynamics that are fitted to each of a run's three episodes.
TINY_IMAGINATION = [
    "--model.rollout_batch_size=8",
    "--model.rollout_freq=2",
    "--model.episodes_per_fit=1",
    "--model.initial_modes=1",
]
# The same for World Models' stages.
TINY_WORLD_MODELS = [
    *(option for option in TINY if not option.startswith(("--model.", "--data.learning_starts", "--trainer.log_"))),
    "--trainer.log_every_n_steps=3",
    "--data.learning_starts=2",
    "--data.sequence_length=4",
    "--data.env.workers=false",
    *(f"--model.{size}=2" for size in ("depth", "latent", "hidden", "mixtures", "generations", "population")),
    *(f"--model.{steps}=3" for steps in ("vae_steps", "vae_batch_size", "rnn_steps")),
    "--model.episodes=1",
    "--model.epochs_per_stage=1",
]
# The same for PILCO, whose horizon is in decisions of two steps each.
TINY_PILCO = [
    *(option for option in TINY if not option.startswith("--model.")),
    "--model.horizon=5",
    *(f"--model.{size}=3" for size in ("num_basis", "policy_iterations", "model_iterations")),
]
PLANNING = ("pets", "poplin_a", "poplin_p")
LATENT = ("dreamer", "dreamer_exploration", "maxent_dreamer", "planet", "revised_dreamer")
TABULAR = ("dyna_q", "dyna_q_plus")
DISCRETE = ("dqn", "her_bit_flip", "i2a", "policy_distillation")  # of discrete actions alone, or as a teacher's
GOALS = ("tdm", "tdm_td3")  # learn tasks with goals alone
NO_WANDB = "--trainer.logger=null"
SAC = ["fit", "--config", "conf/sac.yaml", *TINY, NO_WANDB]


def tiny(config: Path | str) -> list[str]:
    """The options that make a run of a config file, or of one by its name in `conf/`, one of a second."""
    path = config if isinstance(config, Path) else CONF / f"{config}.yaml"
    if path.stem in TABULAR:  # their batches and networks are those of their configs: none
        return [option for option in TINY if not option.startswith((*_OFF_POLICY, "--model."))]
    if path.stem in ("a2c", "i2a"):
        return TINY_A2C if path.stem == "a2c" else TINY_I2A
    if path.stem == "policy_distillation":
        return [*TINY_ON_POLICY, f"--model.teacher={teacher()}"]
    if "lit_mbrl.data.OnPolicy" in path.read_text():
        return TINY_ON_POLICY
    if "train_steps_per_collection" in path.read_text():
        return TINY_SWEEPS
    if path.stem == "world_models":
        return TINY_WORLD_MODELS
    if path.stem == "pilco":
        return TINY_PILCO
    if path.stem in LATENT:
        return TINY_LATENT + TINY_PLANNER * (path.stem == "planet")
    if "rollout_length" in path.read_text():
        return TINY + TINY_IMAGINATION
    return TINY + TINY_PLANNING * (path.stem in PLANNING)


@cache
def teacher() -> Path:
    """The checkpoint of an agent for CartPole, hardly trained."""
    path = Path(tempfile.mkdtemp()) / "teacher.ckpt"
    fit(PPO(hidden_sizes=[8]), make_rollouts()).save_checkpoint(path)
    return path


class SendSignal(Callback):
    """Sends this process signals at the end of a round, before `GracefulStop` looks, or during the warm-up."""

    def __init__(self, round: int, number: int | list[int] = int(signal.SIGINT)) -> None:
        self.round, self.numbers = round, number if isinstance(number, list) else [number]

    def on_warmup(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.round == 0 and pl_module.env_steps == 1:
            self._send()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == self.round:
            self._send()

    def _send(self) -> None:
        for number in self.numbers:
            os.kill(os.getpid(), number)


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics, without how long things took."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]


def run_folders(directory: Path) -> list[Path]:
    """All run folders below a working directory."""
    return sorted(path.parent for path in directory.glob("runs/*/*/*/config.yaml"))


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint, read as the application reads it, with the frames of its replay in the place of their files.

    The state of the data module is under `"OffPolicy"`, whichever data module the run had.
    """
    content = torch.load(checkpoint, weights_only=True)
    for name in ("OnPolicy", "SequenceReplay"):
        if name in content:
            content["OffPolicy"] = content.pop(name)
    data = content.get("OffPolicy", {})
    for replay in (own.get("replay", {}) for own in data.get("ranks", [data])):
        if "files" in replay:
            parts = [torch.load(checkpoint.parent / "replay" / name, weights_only=True) for name, *_ in replay["files"]]
            frames = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            replay["frames"] = {name: value[len(value) - replay["size"] :] for name, value in frames.items()}
            del replay["files"]
    return content


def comparable(data: dict[str, Any]) -> dict[str, Any]:
    """The state of a data module, without snapshots of Bullet: their bytes differ where the physics are the same."""
    return {name: value for name, value in data.items() if name != "envs" or "Bullet" not in repr(value)}


def same(first: Any, second: Any) -> bool:
    """Whether two trees of tensors and plain values are bit-equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)
