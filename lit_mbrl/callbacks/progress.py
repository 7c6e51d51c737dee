"""Shows a run's progress on a terminal, or in the log of a batch job."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, ClassVar, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat

_SILENCE = 30.0  # seconds between two lines about one piece of work
_BAR = "{percentage:3.0f}% |{bar}| {n:,}/{total:,} env steps [{elapsed}<{remaining}, {rate_fmt}]{postfix}"


@options
class ProgressBar(Callback):
    """A bar with environment steps, steps per second, time left and the last evaluation's return.

    Where standard error is not a terminal, a line per evaluation takes its place, and one every half a minute while a
    model is fitted. After a resume the speed counts this run's steps only.
    """

    section: ClassVar[str] = "progress"

    enabled: bool = True
    """Show anything at all."""
    refresh_seconds: NonNegativeFloat = 0.25
    """Time between updates of the bar."""

    def __post_init__(self) -> None:
        self._bar: tqdm | None = None
        self._shown = 0.0
        self._start_time = self._line_time = 0.0
        self._line_steps = 0
        self._evaluation = ""
        self._work_time: float | None = None

    # ------------------------------------------------------------------ hooks
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, at the restored step of a resumed run."""
        self._start_time = self._line_time = time.monotonic()
        self._line_steps = pl_module.env_steps
        if self.enabled and trainer.is_global_zero and _has_terminal():
            self._bar = tqdm(
                total=trainer.datamodule.total_frames,
                initial=pl_module.env_steps,
                bar_format=_BAR,
                unit=" steps",
                dynamic_ncols=True,
                file=_terminal(),
                mininterval=0,  # `_refresh` decides when
                miniters=1,
            )

    def on_warmup(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows collected frames while there is no training step yet."""
        self._refresh(pl_module)

    def on_model_work(self, trainer: Trainer, pl_module: LightningModule, news: str) -> None:
        """Shows what is going on where no training step ends for a while: a world model is fitted or rolled out."""
        if not self.enabled or not trainer.is_global_zero:
            return
        now = time.monotonic()
        if self._bar is not None:
            if now - self._shown >= self.refresh_seconds:
                self._bar.set_postfix_str(", ".join(filter(None, (self._evaluation, news))), refresh=False)
                self._refresh(pl_module, force=True)
                self._bar.set_postfix_str(self._evaluation, refresh=False)
            return
        if self._work_time is None:
            self._work_time = now
        if now - max(self._work_time, self._line_time) >= _SILENCE:
            self._work_time = now
            print(f"{pl_module.env_steps:,}/{trainer.datamodule.total_frames:,} env steps, {news}", flush=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Shows a finished training step."""
        self._work_time = None
        self._refresh(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the evaluation's return."""
        if not self.enabled or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics
        if "eval/return" not in metrics:
            return
        evaluation = f"eval return {metrics['eval/return']:.1f} +- {metrics['eval/return_std']:.1f}"
        if self._bar is not None:
            self._evaluation = evaluation
            self._bar.set_postfix_str(evaluation, refresh=False)
            self._refresh(pl_module, force=True)
            return
        steps, total = pl_module.env_steps, trainer.datamodule.total_frames
        now = time.monotonic()
        # Since the last line: the warm-up is much faster than what follows it.
        speed = (steps - self._line_steps) / max(now - self._line_time, 1e-9)
        self._line_time, self._line_steps = now, steps
        left = duration((total - steps) / speed) if speed > 0 else "?"
        print(
            f"{steps:,}/{total:,} env steps ({steps / total:.0%}), {speed:,.0f} steps/s, "
            f"{duration(now - self._start_time)} elapsed, {left} left, {evaluation}",
            flush=True,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the finished bar on the screen."""
        if self._bar is not None:
            self._refresh(pl_module, force=True)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the bar where it was."""
        self._close()

    # ------------------------------------------------------------------ the bar
    def _refresh(self, pl_module: LightningModule, force: bool = False) -> None:
        if self._bar is None:
            return
        now = time.monotonic()
        if force or now - self._shown >= self.refresh_seconds:
            self._shown = now
            self._bar.update(pl_module.env_steps - self._bar.n)
            if force:
                self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _has_terminal() -> bool:
    """Returns whether standard error is a terminal with room for a bar (one without a size has none)."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def _terminal() -> TextIO:
    """The same terminal, past who keeps a copy of `sys.stderr`: W&B's costs several times what the bar does."""
    return open(sys.stderr.fileno(), "w", encoding=sys.stderr.encoding, closefd=False)


def duration(seconds: float) -> str:
    """Seconds as people write them: `42s`, `2m10s`, `3h05m`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
