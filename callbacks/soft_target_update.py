"""Soft update of target networks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.utils.errors import require


class SoftTargetUpdate(Callback):
    """`target <- tau * online + (1 - tau) * target` after every `period`-th training step, for all `targets()`.

    The period counts the module's training steps, so a resumed run keeps its rhythm.

    Args:
        tau: share of the online network; 1 copies it.
        period: training steps between updates.
    """

    moves_targets: ClassVar[bool] = True  # without a callback of this kind an algorithm with targets is refused

    def __init__(self, tau: float = 0.005, period: int = 1) -> None:
        require(0.0 <= tau <= 1.0, "trainer.callbacks.tau", tau, "a number between 0 and 1")
        require(period > 0, "trainer.callbacks.period", period, "an integer > 0")
        self.tau, self.period = tau, period
        self._online: list[torch.Tensor] = []
        self._target: list[torch.Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pairs up the parameters once."""
        self._online, self._target = [], []
        for online, target in pl_module.targets():
            self._online += list(online.parameters())
            self._target += list(target.parameters())

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Runs once per training step."""
        if self._target and pl_module.train_steps % self.period == 0:
            torch._foreach_lerp_(self._target, self._online, self.tau)
