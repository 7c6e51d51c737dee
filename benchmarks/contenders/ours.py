"""lit_mbrl as its user runs it: `python -m lit_mbrl fit` with all that is on by default, and a callback that counts.

Evaluation, logging, callbacks and checkpoints take place. The evaluation's episodes are outside of the clock, since the
others have none; all the rest is inside.
"""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.harness.work import ROOT, Work
from benchmarks.harness.worker import Finished, Meter
from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.application import Application
from lit_mbrl.app.output import silence_libraries


class Ticks(Callback):
    """Tells the meter of every round, and when its clock shall stand still."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_warmup(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is a first environment step."""
        self.meter.started()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """A round is over; of rollouts, the last of the rounds that follow on it."""
        clock = trainer.datamodule.update_schedule
        self.meter.started()
        if pl_module.train_steps % getattr(clock, "train_steps_per_rollout", 1) == 0:
            self.meter.tick()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The evaluation's episodes."""
        self.meter.stop_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """They are over."""
        self.meter.start_clock()


def can_compile() -> bool:
    """Returns whether algorithms have the option `compile`."""
    return "compile" in inspect.signature(Algorithm.__init__).parameters


def arguments(work: Work, folder: str) -> list[str]:
    """The command line."""
    on_policy = work.algorithm == "ppo"
    options = [
        f"--num_threads={work.threads}",
        f"--data.env.name={work.env}",
        f"--data.env.num_envs={work.num_envs}",
        "--data.total_frames=1000000",
    ]
    if on_policy:
        options.append(f"--data.rollout_steps={work.frames_per_round // work.num_envs}")
    else:
        options += [
            f"--data.capacity={work.capacity}",
            f"--data.learning_starts={work.learning_starts}",
            f"--data.frames_per_batch={work.num_envs}",
            f"--data.utd_ratio={1 / work.frames_per_round}",
        ]
    options += [
        f"--trainer.default_root_dir={folder}",
        "--trainer.accelerator=cpu",
        "--progress.enabled=false",
    ]
    if work.hidden is not None:
        options.append(f"--model.hidden_sizes={list(work.hidden)}")
    if work.batch_size is not None:
        options.append(f"--data.batch_size={work.batch_size}")
    if work.lr is not None:
        names = ("lr",) if on_policy else ("actor_lr", "critic_lr")
        options += [f"--model.{name}={work.lr}" for name in names]
        options += [f"--model.alpha_lr={work.lr}"] if work.algorithm == "sac" else []
    if work.compile:
        options.append("--model.compile=true")
    if not work.wandb:
        options.append("--trainer.logger=null")
    return ["fit", "--config", str(ROOT / "conf" / f"{work.algorithm}.yaml"), *options, *work.options]


class Observed(Application):
    """The application with one callback more.

    Args:
        argv: the command line.
        callback: goes before all others.
    """

    def __init__(self, argv: Sequence[str], callback: Callback) -> None:
        self.callback = callback
        super().__init__(argv)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The application's trainer."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, self.callback)
        return trainer


def fit(argv: Sequence[str], callback: Callback) -> None:
    """Runs `python -m lit_mbrl` in this process; what the callback raises comes through."""
    threads = torch.get_num_threads()
    try:
        with silence_libraries():
            Observed(argv, callback)
    finally:
        torch.set_num_threads(threads)


def train(work: Work, meter: Meter) -> None:
    """The contender."""
    with tempfile.TemporaryDirectory() as folder:
        fit(arguments(work, folder), Ticks(meter))


class Visit(Callback):
    """Calls a function at the end of the first round, and ends the run."""

    def __init__(self, function: Callable[[LightningModule, Any], None]) -> None:
        self.function = function

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.function(pl_module, batch)
        raise Finished


def visit(work: Work, function: Callable[[LightningModule, Any], None]) -> None:
    """Calls `function(algorithm, batch)` in the middle of a run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        fit(arguments(work, folder), Visit(function))
