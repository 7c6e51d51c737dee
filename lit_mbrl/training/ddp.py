"""Training on several devices: one process per device, equal weights in all of them, averaged gradients.

Lightning's own `ddp` wraps the module and averages while `forward` and one backward pass run. Here a training step has
several losses, each a method of its own with its own backward pass, which that wrapper does not see. So nothing is
wrapped:

    backward of an update  ->  mean of its gradients over the ranks, in one message  ->  clipping  ->  optimiser step

Equal weights, equal gradients and equal optimisers give equal weights again, bit for bit.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.optim import Optimizer

from lit_mbrl.training.launcher import Launcher
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require

_NAMES = ("ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_PATIENCE = 10.0  # seconds for a process whose connections are closed to end
_PRECISIONS = {"32", "32-true", "bf16-mixed", "16-mixed", "bf16", "16"}


class ManualDDPStrategy(DDPStrategy):
    """Data-parallel training of modules that call `manual_backward` themselves, any number of times.

    Args:
        process_group_backend: torch.distributed's backend of the gradients; None: NCCL on GPUs, gloo on CPUs.
        timeout: how long a rank waits for the others, at evaluations and checkpoints, too.
    """

    def __init__(self, process_group_backend: str | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)

    def configure_ddp(self) -> None:
        """Wraps nothing; all ranks start from rank 0's weights and statistics."""
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Backward pass, then the mean of the gradients of `inputs` (default: all parameters) over the ranks."""
        loss = super().backward(closure_loss, optimizer, *args, **kwargs)
        inputs = kwargs.get("inputs")
        parameters = self.model.parameters() if inputs is None else inputs
        distributed.average_([parameter.grad for parameter in parameters if parameter.grad is not None])
        return loss

    def stop_others(self) -> None:
        """Ends the processes that this one has launched: it has failed, and they would wait for it."""
        if isinstance(self.launcher, Launcher):
            self.launcher.stop()

    def explain(self, error: BaseException) -> str | None:
        """Returns what has happened if `error` is about a message without an answer; otherwise None."""
        if not distributed.is_about_others(error):
            return None
        failure = self.launcher.failure(_PATIENCE) if isinstance(self.launcher, Launcher) else None
        return failure or "the process of another device has failed"

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


def register() -> None:
    """Makes `ddp` (and so `auto` with several devices) this module's strategy."""
    for name in _NAMES:
        StrategyRegistry.register(name, ManualDDPStrategy, override=True)


def check_names(strategy: Any, precision: Any) -> None:
    """Raises `OptionError` for a strategy or a precision that does not work here, by its name."""
    if strategy in StrategyRegistry:  # Lightning says what is wrong with other names
        require(strategy in _NAMES, "trainer.strategy", strategy, "auto or ddp")
    if precision is not None:
        require(
            str(precision) in _PRECISIONS,
            "trainer.precision",
            precision,
            "32-true, bf16-mixed or 16-mixed: weights stay in float32",
        )


def check_trainer(trainer: Trainer, precision: Any) -> None:
    """Raises `OptionError` if Lightning has chosen something that does not work here."""
    strategy, plugin = trainer.strategy, trainer.precision_plugin
    require(
        isinstance(strategy, (SingleDeviceStrategy, ManualDDPStrategy)),
        "trainer.strategy",
        type(strategy).__name__,
        "auto or ddp",
    )
    require(
        type(plugin) in (Precision, MixedPrecision),
        "trainer.plugins",
        type(plugin).__name__,
        "the precision 32-true, bf16-mixed or 16-mixed: weights stay in float32",
    )
    # On a CPU Lightning would take bf16 in its place.
    half = str(precision) in ("16", "16-mixed")
    require(
        not half or getattr(plugin, "precision", None) == "16-mixed",
        "trainer.precision",
        precision,
        "bf16-mixed on a CPU; float16 needs a GPU",
    )
