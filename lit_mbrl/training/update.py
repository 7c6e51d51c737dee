"""What an algorithm says about a round: its updates, and the data they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tensordict import TensorDictBase
from torch import Tensor, nn


@dataclass(frozen=True)
class Update:
    """One line of an algorithm: which parameters descend which loss, on which batch, how often.

    Attributes:
        name: the optimiser's name, also the metric `loss/<name>`.
        modules: whose parameters are trained. No other parameter receives a gradient from this loss.
        loss: maps the batch to a scalar.
        lr: Adam's learning rate.
        batch: `"transitions"` (keys of shape `[B, ...]`) or `"sequences"` (`[B, T, ...]`).
        repeat: gradient steps per round, each on a batch of its own where `batch` is `"sequences"`.
        every: take part in every n-th round only (TD3's delay).
        max_grad_norm: clip the gradient to this global norm.
    """

    name: str
    modules: nn.Module | nn.Parameter | Iterable[nn.Module]
    loss: Callable[[TensorDictBase], Tensor]
    lr: float
    batch: str = "transitions"
    repeat: int = 1
    every: int = 1
    max_grad_norm: float | None = None

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in a fixed order."""
        return self._parameters

    @cached_property  # modules are asked once: walking through them takes as long as a step of a small network
    def _parameters(self) -> list[nn.Parameter]:
        if isinstance(self.modules, nn.Parameter):
            return [self.modules]
        modules = [self.modules] if isinstance(self.modules, nn.Module) else list(self.modules)
        return list(chain.from_iterable(module.parameters() for module in modules))


@dataclass(frozen=True)
class Sampling:
    """What one round reads from the replay besides its transitions.

    Attributes:
        sequence_length: transitions per sequence (`T`); 0: the algorithm reads no sequences.
        sequence_batches: batches of sequences per round, one for each repeated model update.
    """

    sequence_length: int = 0
    sequence_batches: int = 0
