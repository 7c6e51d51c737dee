"""Hooks that callbacks may have besides Lightning's."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Trainer


@runtime_checkable
class WarmupListener(Protocol):
    """A callback that runs after every collection of the warm-up, in which there is no Lightning batch."""

    def on_warmup(self, trainer: Trainer, pl_module: Any) -> None: ...


@runtime_checkable
class ModelWorkListener(Protocol):
    """A callback that receives what goes on where no training step ends for a while."""

    def on_model_work(self, trainer: Trainer, pl_module: Any, news: str) -> None: ...
