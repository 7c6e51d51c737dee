"""Runs of the papers' configs with their networks and environments, and few and small batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lit_mbrl.app.cli import main
from tests.helpers.command_line import NO_WANDB, rows


def short_run(files: Iterable[Path], folder: Path, steps: int, learning_starts: int, *options: str) -> list[dict]:
    """Trains with config files, and returns the rows of `metrics.csv` that have a loss of the critic.

    Args:
        files: of one run, in their order.
        folder: the run folder.
        steps: environment steps, of which there are `learning_starts` before the first training step.
        *options: of the command line.
    """
    sizes = [
        f"--data.total_frames={steps}",
        f"--data.epoch_frames={steps}",
        f"--data.learning_starts={learning_starts}",
        "--data.batch_size=8",
        "--data.eval_episodes=1",
        "--data.env.max_episode_steps=10",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--checkpoint.every_epochs=100",
        f"--trainer.default_root_dir={folder}",
    ]
    assert main(["fit", *[f"--config={file}" for file in files], *sizes, NO_WANDB, *options]) == 0
    return [row for row in rows(folder) if row["loss/critic"]]
