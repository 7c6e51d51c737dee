"""Finds out which of Lightning's hooks are overridden: the others need not be called."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_METHODS = ("manual_backward", "backward", "optimizer_step", "optimizer_zero_grad")


@runtime_checkable
class WarmupListener(Protocol):
    """A callback that runs after every collection of the warm-up, in which there is no Lightning batch."""

    def on_warmup(self, trainer: Trainer, pl_module: Any) -> None: ...


@runtime_checkable
class ModelWorkListener(Protocol):
    """A callback that receives what goes on where no training step ends for a while."""

    def on_model_work(self, trainer: Trainer, pl_module: Any, news: str) -> None: ...


def can_use_fast_path(trainer: Trainer, module: LightningModule) -> bool:
    """Returns whether Lightning would do nothing but call `loss.backward` and `optimizer.step`.

    So it is on one device, without a gradient scaler or a profiler, and as long as no callback and no method of the
    module asks to be called around them. Lightning's ways there and back take longer than the step of a small network.
    """
    precision = trainer.precision_plugin
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(precision) in (Precision, MixedPrecision)
        and getattr(precision, "scaler", None) is None
        and type(trainer.profiler) is PassThroughProfiler
        and not trainer.lr_scheduler_configs
        and not any(overrides(module, LightningModule, name) for name in (*_HOOKS, *_METHODS))
        and not any(overrides(callback, Callback, hook) for callback in trainer.callbacks for hook in _HOOKS)
    )


def overrides(instance: object, base: type, name: str) -> bool:
    """Returns whether a hook is a class's own, or set on the instance as `LambdaCallback` does; None is no hook."""
    own = vars(instance).get(name, getattr(type(instance), name))
    return own is not None and own is not getattr(base, name)
