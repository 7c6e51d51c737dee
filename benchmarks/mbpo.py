"""Where the time of MBPO goes, at the sizes that mbrl-lib was timed at: 7 networks of 4 x 200, 20 updates per step.

    python benchmarks/mbpo.py [environment steps, 250 by default]

InvertedPendulum-v5 stands for mbrl-lib's cart-pole (both have four observations and one action), SAC is 256 x 256 with
batches of 256. mbrl-lib 0.2.0 took, on two cores and for 1000 environment steps, 133 s: 7.7 ms per SAC update, 2.6 ms
per batch of model training, and 174 000 rolled out transitions per second. That was another machine on another day:
figures beside each other say which part is slow, and only runs that take turns say by how much one is faster.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything

from callbacks import SoftTargetUpdate
from lit_mbrl import models
from lit_mbrl.algorithms import MBPO
from lit_mbrl.algorithms import mbpo as module
from lit_mbrl.data import Dyna
from lit_mbrl.envs import EnvConfig

WARMUP, UPDATES, STATES = 250, 20, 100_000


class Timed(MBPO):
    """MBPO with a stop watch for each part."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spent = {"updates": 0.0, "model training": 0.0, "rollouts": 0.0}
        self.counts = {"updates": 0, "model training": 0, "rollouts": 0}

    def watch(self, part: str, count: int, work: Callable[[], Any]) -> Any:
        """Does some work and adds its time and number."""
        start = time.perf_counter()
        result = work()
        self.spent[part] += time.perf_counter() - start
        self.counts[part] += count
        return result

    def training_step(self, *arguments: Any) -> None:
        """One SAC update: critics, actor, temperature."""
        self.watch("updates", 1, lambda: super(Timed, self).training_step(*arguments))

    def fit_model(self, replay: Any) -> dict[str, float]:
        """Counts batches, each one gradient step of all seven networks."""
        return self.watch("model training", 0, lambda: super(Timed, self).fit_model(replay))

    def rollout(self, observation: torch.Tensor, length: int) -> Iterator[Any]:
        """Counts transitions."""
        steps = self.watch("rollouts", len(observation), lambda: list(super(Timed, self).rollout(observation, length)))
        yield from steps


def main() -> None:
    """Runs and prints a table."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    seed_everything(0, verbose=False)
    algorithm = Timed(hidden_sizes=[256, 256])
    fit = models.fit

    def counted(*arguments: Any, **options: Any) -> Any:
        result = fit(*arguments, **options)
        algorithm.counts["model training"] += result.steps
        return result

    module.fit = counted  # type: ignore[attr-defined]
    data = Dyna(
        EnvConfig("InvertedPendulum-v5"),
        total_frames=WARMUP + steps,
        epoch_frames=10**6,
        learning_starts=WARMUP,
        utd_ratio=UPDATES,
        eval_episodes=1,
        rollout_batch_size=STATES,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[SoftTargetUpdate(0.005)],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            max_epochs=-1,
        )
        start = time.perf_counter()
        trainer.fit(algorithm, data)
        total = time.perf_counter() - start
    print(f"{steps} environment steps after a warm-up of {WARMUP}, {torch.get_num_threads()} threads: {total:.1f} s")
    for part, seconds in algorithm.spent.items():
        count = algorithm.counts[part]
        each = f"{count / seconds:,.0f} per second" if part == "rollouts" else f"{seconds / count * 1e3:.2f} ms each"
        print(f"  {part:<15} {seconds:8.1f} s  {count:>8,}  {each}")
    print(f"  {'the rest':<15} {total - sum(algorithm.spent.values()):8.1f} s")


if __name__ == "__main__":
    main()
