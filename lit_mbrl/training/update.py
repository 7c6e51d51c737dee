"""Describes a training step: an algorithm's updates, and the data they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.training.optim import Adam, SearchOptimizer


@dataclass(frozen=True)
class Update:
    """One line of an algorithm: which parameters descend which loss, on which batch, how often.

    Attributes:
        name: the optimiser's name, also the metric `loss/<name>`.
        modules: whose parameters are trained. No other parameter receives a gradient from this loss.
        loss: maps the batch, and what `takes` names, to a scalar; with `gives`, to a scalar and as many values.
        lr: learning rate of the step.
        batch: `"transitions"` (keys of shape `[B, ...]`), `"sequences"` (`[B, T, ...]`), or another batch that the
            algorithm's `sample` returns. The update is left out of training steps that have None in its place.
        repeat: gradient steps per training step, each on a batch of its own where `batch` is `"sequences"`.
        every: take part in every n-th training step only (TD3's delay).
        max_grad_norm: clip the gradient to this global norm.
        takes: names of values that earlier updates of the same training step give; the loss's further arguments, in
            this order.
        gives: names of the values that the loss returns after the scalar, for later updates: constants.
        step: kind of step: an optimiser's class, made with `lr` and `eps`. A `SearchOptimizer`, as `NaturalGradient`,
            evaluates the loss several times, which is then a function of the batch and the parameters alone. Compiled
            training steps need `Adam`.
        eps: epsilon of the step.
        divergence: maps the batch to a scalar that a natural gradient step measures its length by and bounds.
    """

    name: str
    modules: nn.Module | nn.Parameter | Iterable[nn.Module]
    loss: Callable[..., Any]
    lr: float
    batch: str = "transitions"
    repeat: int = 1
    every: int = 1
    max_grad_norm: float | None = None
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    step: Callable[..., torch.optim.Optimizer] = Adam
    eps: float = 1e-8
    divergence: Callable[[TensorDictBase], Tensor] | None = None

    def optimizer(self) -> torch.optim.Optimizer:
        """Makes the optimiser of its parameters."""
        return self.step(self.parameters(), lr=self.lr, eps=self.eps)

    @property
    def searches(self) -> bool:
        """Returns whether its step is a `SearchOptimizer`'s."""
        kind = self.step.func if isinstance(self.step, partial) else self.step
        return isinstance(kind, type) and issubclass(kind, SearchOptimizer)

    def is_due(self, train_step: int, batches: Mapping[str, TensorDictBase | None]) -> bool:
        """Returns whether it takes part in the training step of that number, which has these batches."""
        return train_step % self.every == 0 and batches[self.batch] is not None

    def compute_loss(self, batch: TensorDictBase, given: dict[str, Any]) -> Tensor:
        """Computes the scalar from a batch and from `given`, and adds to `given` what the loss gives."""
        result = self.loss(batch, *[given[name] for name in self.takes])
        if not self.gives:
            return result
        loss, *values = result
        given.update(zip(self.gives, values, strict=True))
        return loss

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in a fixed order."""
        return self._parameters

    @cached_property  # modules are asked once: walking through them takes as long as a step of a small network
    def _parameters(self) -> list[nn.Parameter]:
        if isinstance(self.modules, nn.Parameter):
            return [self.modules]
        modules = [self.modules] if isinstance(self.modules, nn.Module) else list(self.modules)
        return list(chain.from_iterable(module.parameters() for module in modules))


def check_order(updates: Sequence[Update]) -> None:
    """Raises `ValueError` if an update takes what no earlier update gives in each of its training steps."""
    for index, update in enumerate(updates):
        for name in update.takes:
            givers = [earlier for earlier in updates[:index] if name in earlier.gives]
            if not any(update.every % giver.every == 0 for giver in givers):
                raise ValueError(
                    f"the update {update.name!r} takes {name!r}, which no update before it gives in the same "
                    "training step"
                )


@dataclass(frozen=True)
class SequenceBatchSpec:
    """Sizes of the sequences that one training step reads from the replay besides its transitions.

    Attributes:
        sequence_length: transitions per sequence (`T`); 0: the algorithm reads no sequences.
        sequence_batches: batches of sequences per training step, one for each repeated model update.
        option: the option that their length comes from, for messages.
    """

    sequence_length: int = 0
    sequence_batches: int = 0
    option: str = "model.horizon"
