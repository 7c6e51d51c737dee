"""Ctrl-C and SIGTERM end a run with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoint import Checkpoint
from callbacks.hooks import NothingInsideARound
from lit_mbrl.utils import distributed
from lit_mbrl.utils.overdue import WATCH

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A run was asked to stop, and its checkpoint is written."""


class Aborted(BaseException):
    """A run was told to stop at once: nothing more was saved."""


class GracefulStop(NothingInsideARound, Callback):
    """The first SIGINT or SIGTERM finishes the running round, saves and stops; a second SIGINT stops at once.

    SIGINT is a person at a keyboard, who means it when asking twice. SIGTERM comes from programs (a scheduler, an agent
    of a sweep), which repeat themselves and kill what takes too long: any number of them asks for the same.

    In the middle of an epoch the round ends by raising `Interrupted`. At the end of an epoch the evaluation and the
    checkpoint that are due there take place first. The warm-up is part of the first round. A call of the environment
    that does not return within `overdue.STOP_SECONDS` ends the run without another checkpoint.

    Has to come after the callbacks that belong to a round (`SoftTargetUpdate`), or their work would not be saved.
    """

    def __init__(self) -> None:
        self.requested = False  # on any rank
        self._interrupted = False  # this process, by SIGINT
        self._previous: dict[int, Any] = {}

    # ------------------------------------------------------------------ signals
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the two signals, Lightning's own SIGTERM handler (which raises in mid-round) included."""
        self.requested = self._interrupted = False
        WATCH.ask_to_stop(False)
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}

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
        known, self.requested = self.requested, True
        if known or distributed.rank() > 0:
            return  # said once, by one of the ranks that a terminal's Ctrl-C reaches
        # Not print(): the signal may have come while the stream's lock was held.
        os.write(2, b"\nStopping after this round, with a checkpoint. Ctrl-C once more: at once, without.\n")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Around what is left to do after a stop, as W&B's uploads: another SIGTERM changes nothing."""
        if not self.requested or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, lambda number, frame: None)  # SIG_IGN would be inherited
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    # ------------------------------------------------------------------ stopping
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Saves and raises `Interrupted` if the epoch goes on after this round."""
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
        """Whether any process was asked to stop: all have to stop in the same round."""
        self.requested = distributed.any_of(self.requested)
        return self.requested
