"""Soft update of target networks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, PositiveInt


@options
class SoftTargetUpdate(Callback):
    """`target <- tau * online + (1 - tau) * target` after every `period`-th training step, for all `targets()`.

    The period counts the module's training steps, so a resumed run keeps its rhythm. A training step that had no batch
    moves no target.
    """

    section: ClassVar[str] = "trainer.callbacks"
    moves_targets: ClassVar[bool] = True  # without a callback of this kind an algorithm with targets is refused

    tau: ClosedUnitInterval = 0.005
    """Share of the online network; 1 copies it."""
    period: PositiveInt = 1
    """Training steps between updates."""

    def __post_init__(self) -> None:
        self._online: list[torch.Tensor] = []
        self._target: list[torch.Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pairs up the parameters once."""
        self._online, self._target = [], []
        for online, target in pl_module.targets():
            self._online += list(online.parameters())
            self._target += list(target.parameters())

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any = None, batch: Any = None, *args: Any
    ) -> None:
        """Runs once per training step."""
        left_out = bool(batch) and all(frames is None for frames in batch.values())
        if self._target and not left_out and pl_module.train_steps % self.period == 0:
            torch._foreach_lerp_(self._target, self._online, self.tau)
