"""What a round pays, when nothing happens, for all that makes a run trustworthy.

    python benchmarks/cost_of_safety.py --algorithm SAC --pairs 40

One run, in which blocks of 100 rounds with and without take turns (with, without, without, with, ...): two layers of
256 units, batches of 256, one environment step per round. Per pair of blocks the ratio of the times; their median, the
95 % bootstrap interval of the median, and the quartiles. CPU time feels less of what else the machine is doing.

| part | what is on |
|---|---|
| finite | the look at every loss and gradient (`FiniteCheck`) |
| callbacks | `Checkpoint`, `GracefulStop`, `Progress` with its bar |
| loggers | metrics every 100 rounds into `metrics.csv` and into an offline W&B run |
| all | the three together |

The watchdog is a process that waits at a pipe; it is there all the time, and its CPU time is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from scipy.stats import bootstrap

import callbacks.progress
from callbacks import Checkpoint, GracefulStop, Progress, SoftTargetUpdate
from lit_mbrl.algorithms import SAC, SACSVG
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.loggers import CsvLogger, WandbLogger
from lit_mbrl.output import quiet
from lit_mbrl.watchdog import Watchdog

BLOCK, WARM_UP = 100, 1_000
PARTS = ("all", "finite", "callbacks", "loggers")
SIZES: dict[str, Any] = {"hidden_sizes": [256, 256]}
ALGORITHMS = {
    "SAC": lambda: SAC(**SIZES),
    "SACSVG": lambda: SACSVG(**SIZES, horizon=2),
}


class TakeTurns(Callback):
    """Switches a part of the safety on and off between blocks of rounds, and times the blocks."""

    def __init__(self, part: str, pairs: int) -> None:
        self.part, self.pairs = part, pairs
        self.wall: dict[bool, list[float]] = {True: [], False: []}
        self.cpu: dict[bool, list[float]] = {True: [], False: []}
        self._round = 0
        self._on: bool | None = None
        self._start = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers what there is to switch."""
        self._callbacks, self._loggers, self._passes = trainer.callbacks, trainer.loggers, pl_module.finite.passes
        self._needed = [
            callback for callback in trainer.callbacks if isinstance(callback, SoftTargetUpdate | TakeTurns)
        ]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Ends a block and begins the next one."""
        if self._round % BLOCK == 0:
            now = time.perf_counter(), time.process_time()
            block = self._round // BLOCK
            if self._on is not None and block > 2:  # the first two are a rehearsal
                self.wall[self._on].append(now[0] - self._start[0])
                self.cpu[self._on].append(now[1] - self._start[1])
            if block == 2 * self.pairs + 2:
                trainer.should_stop = True
                trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
            self._on = block % 4 in (0, 3)
            self._switch(trainer, pl_module)
            self._start = time.perf_counter(), time.process_time()
        self._round += 1

    def _switch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        on = {part: self._on and self.part in (part, "all") for part in PARTS}
        pl_module.finite.passes = self._passes if on["finite"] else lambda *args: True
        trainer.callbacks = self._callbacks if on["callbacks"] else self._needed
        trainer.loggers = self._loggers if on["loggers"] else []
        trainer.log_every_n_steps = BLOCK if on["loggers"] else 0


def measure(algorithm: str, part: str, pairs: int, folder: Path) -> TakeTurns:
    """The times of the blocks."""
    seed_everything(0, verbose=False)
    frames = WARM_UP + BLOCK * (2 * pairs + 4)
    data = OffPolicy(EnvConfig("Pendulum-v1"), total_frames=frames, epoch_frames=frames, learning_starts=WARM_UP)
    turns = TakeTurns(part, pairs)
    wandb = WandbLogger()
    wandb.use_folder(folder)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        limit_val_batches=0,
        logger=[CsvLogger(folder), wandb],
        callbacks=[turns, SoftTargetUpdate(0.005), Progress(), GracefulStop(), Checkpoint()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=BLOCK,
    )
    trainer.fit(ALGORITHMS[algorithm](), data)
    wandb.close()
    return turns


def summary(times: dict[bool, list[float]]) -> str:
    """Median of the ratios, its interval, and their quartiles, as percent on top."""
    pairs = min(map(len, times.values()))
    ratios = 100 * (np.array(times[True][:pairs]) / np.array(times[False][:pairs]) - 1)
    interval = bootstrap((ratios,), np.median, rng=np.random.default_rng(0)).confidence_interval
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return f"{middle:+.1f} % [{interval.low:+.1f}, {interval.high:+.1f}] ({low:+.1f} to {high:+.1f})"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="SAC")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["all"])
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    # A bar that nobody sees, as if there were a terminal.
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    callbacks.progress._has_terminal, callbacks.progress._terminal = lambda: True, lambda: nowhere
    print("| algorithm | part | ms per round without | CPU time | wall-clock |\n|---|---|---|---|---|")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder, quiet():
            watchdog = Watchdog("nobody", "nothing", "none", folder)
            turns = measure(options.algorithm, part, options.pairs, Path(folder))
            asleep = sum(psutil.Process(watchdog.pid).cpu_times()[:2])
            watchdog.dismiss()
        alone = 1e3 * float(np.median(turns.cpu[False])) / BLOCK
        print(
            f"| {options.algorithm} | {part} | {alone:.1f} | {summary(turns.cpu)} | {summary(turns.wall)} |", flush=True
        )
        print(f"watchdog: {asleep:.2f} s of CPU time, its start included", file=sys.stderr)


if __name__ == "__main__":
    main()
