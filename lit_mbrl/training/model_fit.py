"""Fits beside the training steps: of a world model to all data, or of any other module, with optimisers that go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.models import FitResult, GradientStep, ModelLoss, fit, fit_epochs
from lit_mbrl.training.compiled import CompileError
from lit_mbrl.training.compiled_loss import CompiledLoss
from lit_mbrl.training.gradient_step import may_step
from lit_mbrl.training.nonfinite import NonFiniteGuard
from lit_mbrl.training.optim import Adam


class _NoAlgorithm:
    """Stands for the algorithm of a fit that is on its own."""

    compile_option = False

    def __init__(self) -> None:
        self.finite = NonFiniteGuard()


class ModelFitter:
    """Takes the gradient steps that belong to no training step: those of fits.

    Each loss has an Adam of its own, which goes on from fit to fit and from a checkpoint. Steps are checked for NaN as
    those of training steps are, and where `model.compile` asks for it, losses of whole batches are compiled.

    Attributes:
        optimizers: by the names that they were asked for by.
        graphs: compiled losses, by name.
        compiles: whether fits are compiled as far as `compile` asks for it; False once that has failed.

    Args:
        algorithm: an `Algorithm`, for its finite check and its option `compile`; None: there is
            none.
        **options: of every `models.fit`, or `models.fit_epochs`.
    """

    def __init__(self, algorithm: Any | None = None, **options: Any) -> None:
        self.options = options
        self.optimizers: dict[str, Adam] = {}
        self.graphs: dict[str, CompiledLoss] = {}
        self.compiles = True
        self._algorithm = _NoAlgorithm() if algorithm is None else algorithm
        self._saved: dict[str, Any] = {}

    def fit(
        self,
        objective: ModelLoss,
        module: nn.Module,
        frames: TensorDictBase,
        holdout: TensorDictBase | None = None,
        **options: Any,
    ) -> FitResult:
        """Fits one objective of a world model until its hold-out error no longer falls: see `models.fit`.

        Args:
            module: the world model.
            **options: of this `models.fit`.
        """
        return fit(objective, frames, self._step_of(objective, module), holdout=holdout, **(self.options | options))

    def fit_epochs(self, objective: ModelLoss, module: nn.Module, frames: TensorDictBase, **options: Any) -> int:
        """Fits one objective of a world model for a number of passes: see `models.fit_epochs`.

        Args:
            module: the world model.
            **options: of `models.fit_epochs`, beside this fitter's own.
        """
        return fit_epochs(objective, frames, self._step_of(objective, module), **(self.options | options))

    def _step_of(self, objective: ModelLoss, module: nn.Module) -> GradientStep:
        optimizer = self.optimizer(f"model/{objective.name}", objective.groups(), objective.lr)
        return self.step(objective.name, optimizer, module, objective.max_grad_norm)

    def optimizer(self, name: str, groups: list[dict[str, Any]], lr: float) -> Adam:
        """The optimiser of that name, made where there is none yet.

        Args:
            groups: parameters, and what is an option of theirs, which goes before the checkpoint's.
        """
        if name not in self.optimizers:
            optimizer = Adam(groups, lr=lr)
            if name in self._saved:
                optimizer.load_state_dict(self._saved.pop(name))
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                group |= {option: value for option, value in own.items() if option != "params"}
                group["lr"] = lr
            self.optimizers[name] = optimizer
        return self.optimizers[name]

    def step(
        self, name: str, optimizer: torch.optim.Optimizer, module: nn.Module, max_grad_norm: float | None = None
    ) -> GradientStep:
        """A function that takes one step on a loss, if that is finite.

        Args:
            name: of the loss, which is the same at every call.
            optimizer: of the trained parameters.
            module: has all that the loss reads besides the frames.
            max_grad_norm: clip the gradient to this norm.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        algorithm = self._algorithm

        def gradient_step(loss_of: Callable[[TensorDictBase], Tensor], frames: TensorDictBase, whole: bool) -> Tensor:
            loss = self._compiled_loss(name, loss_of, frames, module, parameters) if whole else None
            if loss is None:
                optimizer.zero_grad()
                loss = loss_of(frames)
                loss.backward(inputs=parameters)
            if may_step(algorithm.finite, name, loss, parameters, optimizer, max_grad_norm):
                optimizer.step()
            return loss.detach()

        return gradient_step

    def _compiled_loss(
        self,
        name: str,
        loss_of: Callable[[TensorDictBase], Tensor],
        frames: TensorDictBase,
        module: nn.Module,
        parameters: list[nn.Parameter],
    ) -> Tensor | None:
        """The loss, its gradients left in the parameters; None: it has to be computed eagerly."""
        if not (self._algorithm.compile_option and self.compiles):
            return None
        if name not in self.graphs:
            self.graphs[name] = CompiledLoss(module, loss_of, parameters)
        try:
            return self.graphs[name](frames)
        except CompileError as reason:
            self.compiles = False
            rank_zero_warn(f"model.compile: fits run eagerly, since {name}: {reason}")
            return None

    # ------------------------------------------------------------------ checkpoint
    def state_dict(self) -> dict[str, Any]:
        """The optimisers' states, by name."""
        return self._saved | {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back when they are next used: the parameters have come to their device by then."""
        self._saved = dict(state)


class FitsModels:
    """For an algorithm with a `ModelFitter`: its optimisers are in checkpoints, its graphs end with a run."""

    fitter: ModelFitter
    trainer: Any

    def on_fit_start(self) -> None:
        """Forgets graphs of tensors that may have moved to another device since."""
        super().on_fit_start()  # type: ignore[misc]
        self.fitter.graphs = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimisers of the fits."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint["own_optimizers"] = self.fitter.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back."""
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        self.fitter.load_state_dict(checkpoint["own_optimizers"])
