"""Ctrl-C, SIGTERM and what schedulers send besides end a run with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.callbacks.checkpoint import Checkpoint
from lit_mbrl.utils import distributed
from lit_mbrl.utils.overdue import WATCH

# SIGUSR1 and SIGUSR2: Slurm's `--signal`, before the time is up; SIGHUP: the terminal is gone.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Interrupted(Exception):
    """A run was asked to stop, and its checkpoint is written."""


class Aborted(BaseException):
    """A run was told to stop at once: nothing more was saved."""


class GracefulStop(Callback):
    """The first signal finishes the running training step, saves and stops; a second SIGINT stops at once.

    SIGINT is a person at a keyboard, who means it when asking twice. The others (SIGTERM, SIGUSR1, SIGUSR2, SIGHUP)
    come from programs (a scheduler, an agent of a sweep), which repeat themselves and kill what takes too long: any
    number of them asks for the same. Under nohup SIGHUP stays ignored.

    In the middle of an epoch the training step ends by raising `Interrupted`. At the end of an epoch the evaluation and
    the checkpoint that are due there take place first. The warm-up is part of the first training step. A call of the
    environment that does not return within `overdue.STOP_SECONDS` ends the run without another checkpoint.

    Has to come after the callbacks that belong to a training step (`SoftTargetUpdate`), or their work would not be
    saved.

    Attributes:
        requested: whether the run was asked to stop, on any rank.
        received: the signals that this process has got.
    """

    def __init__(self) -> None:
        self.requested = False
        self.received: set[int] = set()
        self._interrupted = False  # this process, by SIGINT
        self._previous: dict[int, Any] = {}

    # ------------------------------------------------------------------ signals
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes over the signals, in the place of Lightning's own handlers, which raise or save in mid-round."""
        if stage != "fit":
            return
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self.requested = self._interrupted = False
        self.received = set()
        WATCH.ask_to_stop(False)
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in _SIGNALS if not self._is_ignored(number)]
            self._previous = {number: signal.signal(number, self._handle) for number in heard}

    @staticmethod
    def _is_ignored(number: int) -> bool:
        return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back: Lightning has no teardown after an exception."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise Aborted
            self._interrupted = True
        WATCH.ask_to_stop()
        self.received.add(number)
        known, self.requested = self.requested, True
        if known or distributed.rank() > 0:
            return  # said once, by one of the ranks that a terminal's Ctrl-C reaches
        # Not print(): the signal may have come while the stream's lock was held.
        os.write(2, b"\nStopping after this training step, with a checkpoint. Ctrl-C once more: at once, without.\n")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Around what is left to do after a stop, as W&B's uploads: another signal of a program's changes nothing."""
        if not self.requested or threading.current_thread() is not threading.main_thread():
            yield
            return
        programs = [number for number in _SIGNALS if number != signal.SIGINT and not self._is_ignored(number)]
        # SIG_IGN would be inherited.
        previous = {number: signal.signal(number, lambda number, frame: None) for number in programs}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    # ------------------------------------------------------------------ stopping
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Saves and raises `Interrupted` if the epoch goes on after this training step."""
        if self._agreed() and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoint):
                    callback.save(trainer)
            raise Interrupted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets `Checkpoint`, which comes later, save and the trainer stop."""
        if self._agreed():
            trainer.should_stop = True

    def _agreed(self) -> bool:
        """Returns whether any process was asked to stop: all have to stop in the same training step."""
        self.requested = distributed.any_of(self.requested)
        return self.requested
