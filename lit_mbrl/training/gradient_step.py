"""One gradient step: of an update, by way of Lightning or past it (`fast_path`), and what a fit shares (`may_step`).

loss -> gradients -> [clip -> check for NaN] -> step of the optimiser

A step that searches (`optim.SearchOptimizer`) turns the gradients into its direction first, and tries several points:

loss -> gradients -> direction -> [clip -> check for NaN] -> (loss, divergence) at each try

One without gradients (`optim.PopulationOptimizer`) draws candidates and is told their losses:

candidates -> losses -> check for NaN -> step of the optimiser
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.training import fast_path
from lit_mbrl.training.nonfinite import NonFiniteGuard
from lit_mbrl.training.optim import PopulationOptimizer, SearchOptimizer, clip_
from lit_mbrl.training.recording import Recording
from lit_mbrl.training.update import Update
from lit_mbrl.utils import distributed


def may_step(
    finite: NonFiniteGuard,
    name: str,
    loss: Tensor,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> bool:
    """Clips the parameters' gradients to a global norm and returns whether the optimiser may step: `NonFiniteGuard`."""
    gradients = [parameter.grad for parameter in parameters]
    if max_grad_norm is not None:
        if scaler is not None:  # float16: the norm is that of the gradient, not of its scaled copy
            scaler.unscale_(optimizer)
        gradients = [clip_(gradients, max_grad_norm)]  # the norm, which is finite if all are
    return finite.check(name, optimizer, loss, gradients, scaler is not None)


class ManualOptimization(Recording):
    """A module that takes the gradient steps of its updates itself.

    Attributes:
        fast_path: let steps bypass Lightning where it has nothing to do around them: see `training.fast_path`.
        uses_fast_path: whether they do in this training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.fast_path = True
        self.uses_fast_path = False
        self._scaler: torch.amp.GradScaler | None = None
        self._optimizers: list[LightningOptimizer] = []  # one per update

    def on_fit_start(self) -> None:
        """Puts the bypasses of Lightning's loop and of layers' calls in their places."""
        super().on_fit_start()
        fast_path.use_layers(self.fast_path)
        if self.fast_path:
            fast_path.use_epoch_loop(self.trainer)

    def on_train_start(self) -> None:
        """Looks up what every gradient step needs."""
        trainer, optimizers = self.trainer, self.optimizers()
        self._optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.uses_fast_path = self.fast_path and fast_path.bypasses(trainer, self)

    def gradient_step(
        self, update: Update, optimizer: LightningOptimizer, frames: TensorDictBase, given: dict[str, Any]
    ) -> Tensor:
        """Takes one gradient step. Only the update's own parameters receive gradients, whatever the loss reads.

        On several devices the gradients are the mean over the ranks as soon as the backward pass returns.

        Args:
            given: what the updates before this one in the training step have given; what this one gives is added.

        Returns:
            The loss before the step.
        """
        parameters, torch_optimizer = update.parameters(), optimizer.optimizer
        if isinstance(torch_optimizer, PopulationOptimizer):
            return self._evolve(update, torch_optimizer, frames)
        loss = update.compute_loss(frames, given)
        for parameter in parameters:  # `zero_grad`, without its hooks and its profiler's entry
            parameter.grad = None
        if self.uses_fast_path:
            fast_path.backward(loss, parameters)
        else:
            self.manual_backward(loss, inputs=parameters)
        searches = isinstance(torch_optimizer, SearchOptimizer)
        if searches:
            torch_optimizer.set_direction(update.divergence and partial(update.divergence, frames))
        name, bound, scaler = update.name, update.max_grad_norm, self._scaler
        if may_step(self.finite, name, loss, parameters, torch_optimizer, bound, scaler):
            if searches:
                self._search(update, torch_optimizer, frames, given, loss)
            elif self.uses_fast_path:
                fast_path.step(self.trainer, torch_optimizer)
            else:
                optimizer.step()
        return loss

    def _search(
        self,
        update: Update,
        optimizer: SearchOptimizer,
        frames: TensorDictBase,
        given: dict[str, Any],
        loss: Tensor,
    ) -> None:
        """Takes a step that searches, and notes its metrics as `<update>/<metric>`."""
        if optimizer.found_inf is not None and optimizer.found_inf.item():
            return

        def evaluate() -> tuple[Tensor, Tensor | None]:
            torch.clear_autocast_cache()  # of the weights before this try
            tried = update.compute_loss(frames, dict(given))
            return _mean(tried), None if update.divergence is None else _mean(update.divergence(frames))

        recording, self._recording = self._recording, False  # the metrics are those of the batch before the step
        with torch.no_grad():
            found = optimizer.search(_mean(loss), evaluate)
        self._recording = recording
        torch.clear_autocast_cache()
        self.note({f"{update.name}/{name}": value for name, value in found.items()})
        fast_path.count_steps(self.trainer, 1)

    @torch.no_grad()
    def _evolve(self, update: Update, optimizer: PopulationOptimizer, frames: TensorDictBase) -> Tensor:
        """Takes a step without gradients, and notes its metrics as `<update>/<metric>`; returns the mean loss."""
        losses = update.loss(frames, optimizer.ask())
        self.finite.check(update.name, optimizer, losses.mean(), [losses], False)
        found = optimizer.tell(losses)
        self.note({f"{update.name}/{name}": value for name, value in found.items()})
        fast_path.count_steps(self.trainer, 1)
        return losses.mean()


def _mean(value: Tensor) -> Tensor:
    """The mean over the ranks, a constant."""
    value = value.detach().clone()
    distributed.average_([value])
    return value
