"""Checkpoints of a run, complete or not there at all."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning.pytorch.callbacks
from lightning.pytorch import LightningModule, Trainer

from lit_mbrl.utils.errors import TrainingError, require
from lit_mbrl.utils.files import flush
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt, Rule

_TAKEN = ("replay", "wandb", "tensorboard", "config.yaml", "metrics.csv", ".lock")  # by a run's other files

AFTER = "after_"  # of the checkpoint at a stage's end, `after_vae.ckpt`


def _is_free(folder: str) -> bool:
    plain = Path(folder).name == folder != "" and folder.isprintable() and len(folder.encode()) < 200
    return plain and folder not in ("..", *_TAKEN)


@options
class Checkpoint(lightning.pytorch.callbacks.Checkpoint):
    """Writes `checkpoints/last.ckpt` and, when the evaluation improves, `checkpoints/best.ckpt` into the run folder.

    Runs of several stages keep the end of each, `checkpoints/after_<stage>.ckpt`.

    A checkpoint is written under a temporary name, flushed to the disk and renamed, so a run that is killed at any
    moment leaves the previous one intact. Lightning keeps callbacks of this base class last in line: whatever the other
    callbacks do at the end of a training step or of an epoch is in the checkpoint.
    """

    section: ClassVar[str] = "checkpoint"

    every_epochs: PositiveInt = 1
    """Epochs between checkpoints; the end of a run and an improvement are always saved."""
    monitor: str = "eval/return"
    """Metric of the evaluation that decides which checkpoint is the best."""
    mode: Literal["max", "min"] = "max"
    """Direction of a better value: higher (`"max"`) or lower (`"min"`)."""
    folder: Annotated[str, Rule("a name of its own inside the run folder, as checkpoints", _is_free)] = "checkpoints"
    """A name inside the run folder."""

    def __post_init__(self) -> None:
        self.best: float | None = None
        self._saved: tuple[int, int] | None = None

    # ------------------------------------------------------------------ hooks
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the run folder, and lets a data module write its replay beside the checkpoints, each frame once."""
        if stage == "fit" and not trainer.fast_dev_run:
            Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)
        if stage == "fit" and hasattr(trainer.datamodule, "save_replay_in"):
            trainer.datamodule.save_replay_in(Path(trainer.default_root_dir) / self.folder / "replay")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves if it is time to, if the evaluation improved, if a stage is over, or if the run was asked to stop."""
        improved = self._improved(trainer)
        due = (trainer.current_epoch + 1) % self.every_epochs == 0
        ended = trainer.datamodule.update_schedule.ended_stage()
        if improved or due or trainer.should_stop or ended:
            self.save(trainer, best=improved, stage=ended)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what came after the last checkpoint."""
        if self._clock(pl_module) != self._saved:
            self.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds when it was written, and in which format."""
        checkpoint["format"], checkpoint["saved_at"] = 1, time.time()

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and of what."""
        return {"best": self.best, "of": [self.monitor, self.mode]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on comparing with the best value of the run that is resumed, unless it was one of something else."""
        if state_dict.get("of", [self.monitor, self.mode]) == [self.monitor, self.mode]:
            self.best = state_dict["best"]

    # ------------------------------------------------------------------ saving
    def save(self, trainer: Trainer, best: bool = False, stage: str | None = None) -> None:
        """Writes `last.ckpt` now; with `best`, it becomes `best.ckpt` as well. To be called by every process.

        Args:
            stage: which has just ended; it becomes `after_<stage>.ckpt`, too.

        Raises:
            TrainingError: if the disk is full or gone; the previous checkpoints are still there.
        """
        if trainer.fast_dev_run:
            return
        run_folder = Path(trainer.default_root_dir)
        folder = run_folder / self.folder
        temporary = folder / "last.ckpt.tmp"
        if not run_folder.is_dir():
            raise TrainingError(f"the run folder {run_folder} has been removed or moved while the run went on")
        try:
            folder.mkdir(exist_ok=True)
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)  # were it a link, another file would be written
            trainer.save_checkpoint(temporary, weights_only=False)
            if trainer.is_global_zero:
                flush(temporary)
                if best:
                    _replace_by_copy(temporary, folder / "best.ckpt")
                if stage is not None:
                    _replace_by_copy(temporary, folder / f"{AFTER}{stage}.ckpt")
                os.replace(temporary, folder / "last.ckpt")
                flush(folder)
                if hasattr(trainer.datamodule, "prune_replay"):
                    trainer.datamodule.prune_replay()
        except OSError as error:
            temporary.unlink(missing_ok=True)  # its room may be what is missing
            raise TrainingError(f"a checkpoint cannot be written to {folder} ({error.strerror or error})") from error
        trainer.strategy.barrier("checkpoint")
        self._saved = self._clock(trainer.lightning_module)

    def _improved(self, trainer: Trainer) -> bool:
        metrics = sorted(trainer.callback_metrics)
        known = self.monitor in metrics or not metrics  # there may have been no evaluation
        require(known, "checkpoint.monitor", self.monitor, f"a metric of the evaluation: {', '.join(metrics)}")
        value = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if math.isnan(value):
            return False
        if self.best is not None and (value <= self.best if self.mode == "max" else value >= self.best):
            return False
        self.best = value
        return True

    @staticmethod
    def _clock(pl_module: LightningModule) -> tuple[int, int]:
        return pl_module.env_steps, pl_module.train_steps


def _replace_by_copy(source: Path, target: Path) -> None:
    """Puts a copy of `source` in the place of `target` in one step; a hard link where the file system has them."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        flush(temporary)
    os.replace(temporary, target)
