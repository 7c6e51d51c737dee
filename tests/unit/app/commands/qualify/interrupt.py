"""A callback that interrupts the program that has started its run."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.callbacks import GracefulStop


class InterruptParent(Callback):
    """Sends the parent process a SIGINT at the end of a round, and waits until this one is asked to stop."""

    def __init__(self, round: int) -> None:
        self.round = round

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == self.round:
            os.kill(os.getppid(), signal.SIGINT)
            (stop,) = (callback for callback in trainer.callbacks if isinstance(callback, GracefulStop))
            deadline = time.monotonic() + 120
            while not stop.requested and time.monotonic() < deadline:
                time.sleep(0.02)
