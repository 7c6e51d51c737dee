"""Measures what each bypass of Lightning and torch gains of a training step (`lit_mbrl.training.fast_path`).

    python -m benchmarks.studies.bypasses --runs SAC "SAC, 64 units" PPO --parts loop backward step --rounds 4000

One run, in which ten training steps with and ten without a bypass take turns (with, without, without, with, ...), on
one thread; of PPO whole rollouts with all their minibatches, since what is computed for single rows is computed before
the first of these. Gains are in percent of the CPU time (`time.process_time`) of a training step without it,
environment steps included: the ratio of the medians within each stretch of 400 training steps, or of two rollouts, and
of these the median and the quartiles.

| part | without it |
|---|---|
| loop | Lightning's own loop over batches |
| backward | `manual_backward` |
| kernel | torch's `step` of Adam in the place of its fused kernel alone |
| step | Lightning's wrapper around that as well |
| layers | `nn.Module.__call__` of each layer of a perceptron |
| all | `fast_path` off |
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from benchmarks.harness.pairs import spread
from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.app.output import silence_libraries
from lit_mbrl.callbacks import Checkpoint, GracefulStop, ProgressBar, SoftTargetUpdate
from lit_mbrl.data import OffPolicy, OnPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.training import fast_path

STRETCH, REHEARSAL, WARM_UP, ROLLOUT = 400, 300, 1_000, 2_048
OWN_BACKWARD, OWN_STEP = fast_path.backward, fast_path.step
RUNS: dict[str, Callable[[], Any]] = {
    "SAC": lambda: SAC(hidden_sizes=[256, 256]),
    "SAC, 64 units": lambda: SAC(hidden_sizes=[64, 64]),
    "SAC, compiled": lambda: SAC(hidden_sizes=[256, 256], compile=True),
    "PPO": lambda: PPO(hidden_sizes=[64, 64]),
}


def loop(on: bool, trainer: Trainer, module: Any) -> None:
    trainer.fit_loop.epoch_loop._bypasses = on


def backward(on: bool, trainer: Trainer, module: Any) -> None:
    fast_path.backward = (
        OWN_BACKWARD if on else lambda loss, parameters: module.manual_backward(loss, inputs=parameters)
    )


def kernel(on: bool, trainer: Trainer, module: Any) -> None:
    def torch_step(trainer: Trainer, optimizer: Any) -> None:
        fast_path.count_steps(trainer, 1)
        optimizer.step()

    fast_path.step = OWN_STEP if on else torch_step


def step(on: bool, trainer: Trainer, module: Any) -> None:
    wrappers = {id(wrapper.optimizer): wrapper for wrapper in module._optimizers}
    fast_path.step = OWN_STEP if on else lambda trainer, optimizer: wrappers[id(optimizer)].step()


def layers(on: bool, trainer: Trainer, module: Any) -> None:
    fast_path.use_layers(on)


def everything(on: bool, trainer: Trainer, module: Any) -> None:
    module.uses_fast_path = on
    loop(on, trainer, module)
    layers(on, trainer, module)


PARTS = {"loop": loop, "backward": backward, "kernel": kernel, "step": step, "layers": layers, "all": everything}
TURN, MINIBATCHES = 10, 320  # training steps of a turn; of a rollout of PPO


class TakeTurns(Callback):
    """Switches a bypass on and off from one training step to the next, and times them.

    Attributes:
        cpu: seconds of the turns without (0) and with (1) it, in their order.

    Args:
        turn: training steps of a turn.
    """

    def __init__(self, part: str, rounds: int, turn: int) -> None:
        self.switch, self.rounds, self.turn = PARTS[part], rounds, turn
        self.cpu: tuple[list[float], list[float]] = ([], [])
        self._round, self._start = -1 - max(REHEARSAL, turn), 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Ends a training step and begins the next: the time between two, as collecting, is the second one's."""
        now = time.process_time()
        self._round += 1
        if self._round % self.turn:
            return
        if self._round > 0:
            self.cpu[self._is_on(self._round - 1)].append(now - self._start)
        if self._round == self.rounds:
            trainer.should_stop = True
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
        self.switch(self._is_on(self._round), trainer, pl_module)
        self._start = time.process_time()

    def _is_on(self, round: int) -> bool:
        return round // self.turn % 4 in (0, 3)


def measure(name: str, part: str, rounds: int) -> TakeTurns:
    """Times the training steps of a run."""
    seed_everything(0, verbose=False)
    frames, turn = WARM_UP + REHEARSAL + rounds + 2, TURN
    if name == "PPO":
        turn, rounds = MINIBATCHES, rounds // (2 * MINIBATCHES) * 2 * MINIBATCHES
        frames = (rounds // MINIBATCHES + 3) * ROLLOUT
        data: Any = OnPolicy(EnvConfig("CartPole-v1", num_envs=8), total_frames=frames, epoch_frames=frames)
    else:
        data = OffPolicy(EnvConfig("Pendulum-v1"), total_frames=frames, epoch_frames=frames, learning_starts=WARM_UP)
    turns = TakeTurns(part, rounds, turn)
    with tempfile.TemporaryDirectory() as folder, silence_libraries():
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=-1,
            limit_val_batches=0,
            logger=[CsvLogger(folder)],
            callbacks=[turns, SoftTargetUpdate(tau=0.005), ProgressBar(enabled=False), GracefulStop(), Checkpoint()],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=100,
        )
        trainer.fit(RUNS[name](), data)
    fast_path.backward, fast_path.step = OWN_BACKWARD, OWN_STEP
    return turns


def gains(turns: TakeTurns) -> list[float]:
    """Returns the gain in each stretch, in percent."""
    half = max(STRETCH // 2 // turns.turn, 1)
    count = min(map(len, turns.cpu)) // half
    without, with_it = (np.median(np.array(part[: count * half]).reshape(count, half), 1) for part in turns.cpu)
    return (100 * (1 - with_it / without)).tolist()


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=["SAC"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=4_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| run | bypass | ms (CPU) without | gain, % |\n|---|---|---|---|")
    for name in options.runs:
        for part in options.parts:
            turns = measure(name, part, options.rounds)
            alone = 1e3 * float(np.median(turns.cpu[False])) / turns.turn
            print(f"| {name} | {part} | {alone:.2f} | {spread(gains(turns))} |", flush=True)


if __name__ == "__main__":
    main()
