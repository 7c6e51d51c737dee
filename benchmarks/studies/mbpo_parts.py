"""Times the parts of MBPO, in CPU seconds, at the sizes of `python -m benchmarks --only mbpo`.

    python -m benchmarks.studies.mbpo_parts [--steps 250] [--compile] [--threads 1]

7 networks of 4 x 200, 20 updates of SAC (256 x 256, batches of 256) per environment step, on InvertedPendulum-v5. The
first graph's compilation is a part of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything

from benchmarks.suites.mbpo import EPOCHS, LEARNING_STARTS, TASK, UPDATES
from lit_mbrl import models
from lit_mbrl.algorithms import MBPO
from lit_mbrl.callbacks import SoftTargetUpdate
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.training import model_fit

STATES, WARM = 100_000, 20
PARTS = ("compilation and first updates", "updates", "model training", "rollouts", "sampling")


class Timed(MBPO):
    """MBPO with a stop watch for each part."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spent, self.counts = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)

    def watch(self, part: str, count: int, work: Callable[[], Any]) -> Any:
        """Does some work and adds its time and number."""
        start = time.process_time()
        result = work()
        self.spent[part] += time.process_time() - start
        self.counts[part] += count
        return result

    def training_step(self, *arguments: Any) -> None:
        """One SAC update: critics, actor, temperature."""
        part = PARTS[0] if self.counts[PARTS[0]] < WARM else "updates"
        self.watch(part, 1, lambda: super(Timed, self).training_step(*arguments))

    def fit_model(self, replay: Any) -> dict[str, float]:
        """Counts batches, each one gradient step of all seven networks."""
        return self.watch("model training", 0, lambda: super(Timed, self).fit_model(replay))

    def rollout(self, observation: torch.Tensor, length: int) -> Iterator[Any]:
        """Counts transitions."""
        steps = self.watch("rollouts", len(observation), lambda: list(super(Timed, self).rollout(observation, length)))
        yield from steps

    def sample(self, data: Any) -> Any:
        """One batch."""
        return self.watch("sampling", 1, lambda: super(Timed, self).sample(data))


def main() -> None:
    """Runs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="environment steps after the warm-up")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seed_everything(0, verbose=False)
    algorithm = Timed(
        hidden_sizes=[256, 256],
        model_max_epochs=EPOCHS,
        model_patience=EPOCHS,
        compile=options.compile,
        rollout_batch_size=STATES,
        real_ratio=0.0,
    )
    fit = models.fit

    def counted(*arguments: Any, **settings: Any) -> Any:
        result = fit(*arguments, **settings)
        algorithm.counts["model training"] += result.steps
        return result

    model_fit.fit = counted  # type: ignore[attr-defined]
    data = OffPolicy(
        EnvConfig(TASK),
        total_frames=LEARNING_STARTS + options.steps,
        epoch_frames=10**6,
        learning_starts=LEARNING_STARTS,
        utd_ratio=UPDATES,
        eval_episodes=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[SoftTargetUpdate(tau=0.005)],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            max_epochs=-1,
        )
        start = time.process_time()
        trainer.fit(algorithm, data)
        total = time.process_time() - start
    print(f"{options.steps} steps after {LEARNING_STARTS:,} random ones, {options.threads} threads: {total:.1f} s")
    for part, seconds in algorithm.spent.items():
        count = algorithm.counts[part]
        each = f"{count / seconds:,.0f} per second" if part == "rollouts" else f"{seconds / count * 1e3:.2f} ms each"
        print(f"  {part:<30} {seconds:8.1f} s  {count:>8,}  {each}")
    print(f"  {'the rest':<30} {total - sum(algorithm.spent.values()):8.1f} s")


if __name__ == "__main__":
    main()
