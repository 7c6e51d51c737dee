"""Measures the cost per training step, when nothing goes wrong, of all that makes a run trustworthy.

    python -m benchmarks.studies.cost_of_safety --algorithm SAC --rounds 8000

One run, in which rounds with and without take turns (with, without, without, with, ...): two layers of 256 units,
batches of 256, one environment step per round. Neighbours share what else the machine is doing, so the ratio of the
sums has little noise; the interval is a 95 % bootstrap over stretches of 200 rounds. CPU time feels less of others.

| part | what is on |
|---|---|
| finite | the look at every loss and gradient (`NonFiniteGuard`) |
| callbacks | `Checkpoint`, `GracefulStop`, `ProgressBar` with its bar |
| loggers | metrics every 100 rounds into `metrics.csv` and into an offline W&B run |
| all | the three together |

What happens now and then happens in a round with it, and as often per such round as in a run with nothing but them:
every 200th round of this run is logged, and the bar is refreshed every half a second. The watchdog is a process that
waits at a pipe; it is there all the time, and its CPU time is printed.
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

import lit_mbrl.callbacks.progress
from lit_mbrl.algorithms import SAC, SACSVG
from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.app.loggers import WandbLogger
from lit_mbrl.app.output import silence_libraries
from lit_mbrl.app.watchdog import Watchdog
from lit_mbrl.callbacks import Checkpoint, GracefulStop, ProgressBar, SoftTargetUpdate
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig

STRETCH, REHEARSAL, WARM_UP = 200, 400, 1_000
PARTS = ("all", "finite", "callbacks", "loggers")
SIZES: dict[str, Any] = {"hidden_sizes": [256, 256]}
ALGORITHMS = {
    "SAC": lambda: SAC(**SIZES),
    "SACSVG": lambda: SACSVG(**SIZES, horizon=2),
}


class TakeTurns(Callback):
    """Switches a part of the safety on and off from round to round, and times the rounds.

    Attributes:
        wall: seconds of the rounds without (0) and with (1) the part, in their order.
        cpu: the same in CPU time.
    """

    def __init__(self, part: str, rounds: int) -> None:
        self.part, self.rounds = part, rounds
        self.wall: tuple[list[float], list[float]] = ([], [])
        self.cpu: tuple[list[float], list[float]] = ([], [])
        self._round = -REHEARSAL
        self._start = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers what there is to switch."""
        self._loggers, self._passes = trainer.loggers, pl_module.finite.check

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Ends a round and begins the next one: the time between two rounds, as collecting, is the second one's."""
        loop = trainer.fit_loop.epoch_loop
        if self._round == -REHEARSAL:
            self._hooks = loop._ends
            self._needed = [hook for hook in loop._ends if isinstance(hook.__self__, SoftTargetUpdate)]
        now = time.perf_counter(), time.process_time()
        if self._round > 0:
            with_it = self._is_on(self._round - 1)
            self.wall[with_it].append(now[0] - self._start[0])
            self.cpu[with_it].append(now[1] - self._start[1])
        if self._round == self.rounds:
            trainer.should_stop = True
            loop.batch_progress.is_last_batch = True
        on = {part: self._is_on(self._round) and self.part in (part, "all") for part in PARTS}
        pl_module.finite.check = self._passes if on["finite"] else lambda *args: True
        loop._ends = self._hooks if on["callbacks"] else self._needed
        trainer.loggers = self._loggers if on["loggers"] else []
        # A round that is logged is one with it; `training_step`, which comes next, asks for the remainder.
        trainer.log_every_n_steps = 200 if on["loggers"] else 0
        self._round += 1
        self._start = time.perf_counter(), time.process_time()

    @staticmethod
    def _is_on(round: int) -> bool:
        return round % 4 in (0, 3)


def measure(algorithm: str, part: str, rounds: int, folder: Path) -> TakeTurns:
    """The times of the rounds."""
    seed_everything(0, verbose=False)
    frames = WARM_UP + REHEARSAL + rounds + 2
    data = OffPolicy(EnvConfig("Pendulum-v1"), total_frames=frames, epoch_frames=frames, learning_starts=WARM_UP)
    turns = TakeTurns(part, rounds)
    wandb = WandbLogger()
    wandb.use_folder(folder)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        limit_val_batches=0,
        logger=[CsvLogger(folder), wandb],
        callbacks=[turns, SoftTargetUpdate(tau=0.005), ProgressBar(refresh_seconds=0.5), GracefulStop(), Checkpoint()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=200,
    )
    trainer.fit(ALGORITHMS[algorithm](), data)
    wandb.close()
    return turns


def summary(times: tuple[list[float], list[float]]) -> str:
    """Ratio of the sums and its interval, as percent on top."""
    half = STRETCH // 2
    count = min(map(len, times)) // half
    without, with_it = (np.array(part[: count * half]).reshape(count, half).sum(1) for part in times)

    def percent(off: np.ndarray, on: np.ndarray, axis: int = -1) -> np.ndarray:
        return 100 * (on.sum(axis) / off.sum(axis) - 1)

    interval = bootstrap((without, with_it), percent, paired=True, rng=np.random.default_rng(0)).confidence_interval
    return f"{percent(without, with_it):+.1f} % [{interval.low:+.1f}, {interval.high:+.1f}]"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="SAC")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["all"])
    parser.add_argument("--rounds", type=int, default=8_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    # A bar that nobody sees, as if there were a terminal.
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    lit_mbrl.callbacks.progress._has_terminal, lit_mbrl.callbacks.progress._terminal = lambda: True, lambda: nowhere
    print("| algorithm | part | ms per round without | CPU time | wall-clock |\n|---|---|---|---|---|")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder, silence_libraries():
            watchdog = Watchdog("nobody", "nothing", "none", folder)
            turns = measure(options.algorithm, part, options.rounds, Path(folder))
            asleep = sum(psutil.Process(watchdog.pid).cpu_times()[:2])
            watchdog.dismiss()
        alone = 1e3 * float(np.median(turns.cpu[False]))
        print(
            f"| {options.algorithm} | {part} | {alone:.1f} | {summary(turns.cpu)} | {summary(turns.wall)} |", flush=True
        )
        print(f"watchdog: {asleep:.2f} s of CPU time, its start included", file=sys.stderr)


if __name__ == "__main__":
    main()
