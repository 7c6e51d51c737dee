"""Measures a run's progress, and records the metrics of its training steps for the loggers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_mbrl.training.loading import load_agent
from lit_mbrl.training.nonfinite import NonFiniteGuard
from lit_mbrl.training.stages import untrained
from lit_mbrl.training.update import Update
from lit_mbrl.utils import distributed
from lit_mbrl.utils.description import describe
from lit_mbrl.utils.hooks import ModelWorkListener


class Recording(LightningModule):
    """Measures progress and records metrics, for a module whose data module counts environment and training steps.

    Attributes:
        finite: looks at every loss and gradient before the step.
        loaded_clocks: environment and training steps of the checkpoint, without a trainer; None: the trainer has them.
        update_list: the updates of one training step, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finite = NonFiniteGuard()
        self.update_list: list[Update] = []
        self._clock_is_read = False
        self._recorded: dict[str, Tensor] = {}
        self._recording = False
        self._notes: dict[str, float] = {}
        self._last_log: tuple[float, int] | None = None
        self._model_rollouts = 0
        self._wall_time_before = 0.0
        self._started: float | None = None
        self.loaded_clocks: tuple[int, int] | None = None

    # ------------------------------------------------------------------ progress
    @property
    def env_steps(self) -> int:
        """Environment steps taken so far, warm-up included: the x-axis of everything that is logged."""
        if not self._clock_is_read:  # `nn.Module.__setattr__` takes as long as a small operation
            self._clock_is_read = True
        return self.trainer.datamodule.env_steps if self.loaded_clocks is None else self.loaded_clocks[0]

    @property
    def train_steps(self) -> int:
        """Training steps so far, the running one included."""
        if not self._clock_is_read:
            self._clock_is_read = True
        return self.trainer.datamodule.train_steps if self.loaded_clocks is None else self.loaded_clocks[1]

    @property
    def wall_time(self) -> float:
        """Returns the seconds of training so far, with evaluations and the parts of a resumed run before this one."""
        return self._wall_time_before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def progress_metrics(self) -> dict[str, float]:
        """Returns what a run is measured by, apart from environment steps."""
        progress = {"time/train_steps": float(self.train_steps), "time/seconds": self.wall_time}
        for update in self.update_list:
            if update.name == "actor":
                progress["time/policy_updates"] = float(self.train_steps // update.every * update.repeat)
        if self._model_rollouts:
            progress["time/model_rollouts"] = float(self._model_rollouts)
        repeat = self.trainer.datamodule.env.frames_per_step
        if repeat > 1:
            progress["time/simulator_steps"] = float(self.env_steps * repeat)
        return progress

    def model_rollouts(self, batch_size: int) -> int:
        """Returns how many model rollouts a training step imagines from `batch_size` transitions; none by default."""
        return 0

    def count_model_rollouts(self, batch: dict[str, Any]) -> None:
        """Counts what a training step imagines from its batches (see `Algorithm.training_step`)."""
        frames = batch.get("transitions")
        if frames is None and batch.get("sequences") is not None:
            frames = batch["sequences"][0]
        if frames is not None and (rollouts := self.model_rollouts(frames.numel())):
            self._model_rollouts += rollouts * self.trainer.world_size

    def start_clock(self) -> None:
        """Starts to count `wall_time`."""
        self._started = time.perf_counter()

    def notify_progress(self, news: str) -> None:
        """Lets the callbacks know what is going on where no training step ends for a while."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, ModelWorkListener):
                callback.on_model_work(self.trainer, self, news)

    # ------------------------------------------------------------------ metrics
    def record(self, name: str, value: Tensor | float | Callable[[], Tensor]) -> None:
        """Keeps a scalar of this training step for the log; does nothing in training steps that are not logged.

        Args:
            value: or a function that computes it, which is called in training steps that are logged.
        """
        if self._recording:
            value = value() if callable(value) else value
            self._recorded[name] = torch.as_tensor(value, dtype=torch.float32).detach()

    def logs_now(self) -> bool:
        """Returns whether the metrics of the running training step are logged."""
        return (every := self.trainer.log_every_n_steps) > 0 and self.train_steps % every == 0

    def pop_metrics(self) -> dict[str, Tensor]:
        """Returns the metrics recorded since the last call, and forgets them."""
        recorded, self._recorded = self._recorded, {}
        return recorded

    def note(self, metrics: dict[str, float]) -> None:
        """Keeps metrics of what happens between training steps for the next log, also across a checkpoint."""
        self._notes |= metrics

    def log_training(self) -> None:
        """Sends this training step's metrics (means over the ranks) to the loggers, with one device synchronisation."""
        of_step = self.pop_metrics()
        recorded = torch.stack([torch.zeros((), device=self.device), *(x.to(self.device) for x in of_step.values())])
        distributed.average_([recorded])
        metrics = dict(zip(of_step, recorded[1:].tolist(), strict=True)) | self.trainer.datamodule.pop_metrics()
        metrics |= self._notes
        self._notes = {}
        self.finite.flush()
        metrics |= self.finite.metrics()
        now = time.perf_counter()
        if self._last_log is not None:
            then, env_steps = self._last_log
            metrics["time/steps_per_second"] = (self.env_steps - env_steps) / (now - then)
        self._last_log = (now, self.env_steps)
        self.log_metrics(metrics)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Writes metrics to every logger at the current environment step."""
        metrics = metrics | self.progress_metrics()
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.env_steps)

    # ------------------------------------------------------------------ checkpoint
    def on_fit_start(self) -> None:
        """Takes the clocks from the trainer."""
        self.loaded_clocks = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves Lightning's loop counters out: `env_steps` and `train_steps` of the data module say where the run is.

        Raises:
            TrainingError: if a step was not finite: what came after it is not saved.
        """
        self.finite.flush()
        checkpoint["skipped"] = dict(self.finite.skipped)
        checkpoint.pop("loops", None)
        checkpoint["notes"] = dict(self._notes)
        checkpoint["progress"] = {"wall_time": self.wall_time, "model_rollouts": self._model_rollouts}
        checkpoint["lit_mbrl"] = self._about()
        checkpoint["agent"] = {
            "model": describe(self),
            "env": describe(self.trainer.datamodule.env),
            "clocks": [self.env_steps, self.train_steps],
        }

    def _about(self) -> dict[str, Any]:
        """Returns what tells this checkpoint from another algorithm's."""
        data = self.trainer.datamodule
        about = {
            "algorithm": type(self).__name__,
            "environment": data.spec.name,
            "env_steps": self.env_steps,
            "train_steps": self.train_steps,
        }
        if self.trainer.world_size > 1:
            about["devices"] = self.trainer.world_size
        schedule = data.update_schedule
        if schedule.stage is not None:
            over = schedule.ended_stage() == schedule.stage.name
            about |= {"stage": schedule.stage.name, "stage_is_over": over}
        return about

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the progress, what is still to be logged and the count of left-out steps."""
        progress = checkpoint["progress"]
        self._wall_time_before, self._model_rollouts = progress["wall_time"], progress["model_rollouts"]
        self._notes = dict(checkpoint["notes"])
        self.finite.skipped = dict(checkpoint["skipped"])
        self._keep_untrained(checkpoint)

    def _keep_untrained(self, checkpoint: dict[str, Any]) -> None:
        """Keeps fresh weights where options of a stage to come have changed their sizes."""
        running = checkpoint.get("lit_mbrl", {}).get("stage")
        if running is None or self.loaded_clocks is not None:  # without a trainer, the sizes are the checkpoint's
            return
        fresh, saved = self.state_dict(), checkpoint["state_dict"]
        for name in untrained(self, self.stages(self.trainer.datamodule), running):
            if name not in saved or saved[name].shape != fresh[name].shape:
                saved[name] = fresh[name].clone()

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, *, trust: bool = False, **options: Any
    ) -> Self:
        """Makes the algorithm of a checkpoint, on the CPU or where `map_location` says: see `load_agent`."""
        return load_agent(checkpoint_path, cls, map_location, trust, options)[0]
