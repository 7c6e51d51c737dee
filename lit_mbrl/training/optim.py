"""Adam, as a fused kernel and as a function for compiled training steps; steps that search; clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AdamState:
    """An `Adam`'s tensors, in the order of its parameters.

    Attributes:
        steps: `[len(parameters)]` float32: how often each parameter has been stepped. The optimiser's state holds its
            elements, so that one addition counts for all.
    """

    parameters: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: Tensor
    each_step: list[Tensor]
    source: Any


class Adam(torch.optim.Adam):
    """torch's Adam, by default with its fused kernel; it says where its tensors are."""

    _tensors: AdamState | None = None

    def __init__(self, parameters: Iterable[Any], **options: Any) -> None:
        super().__init__(parameters, **({"fused": True} | options))

    def tensors(self) -> AdamState:
        """The parameters of the first group and their state, which is made where there is none yet."""
        tensors = self._tensors
        if tensors is None or tensors.source is not self.state:  # `load_state_dict` brings a new one
            tensors = self._tensors = self._gather()
        return tensors

    @torch.no_grad()
    def _gather(self) -> AdamState:
        parameters = list(self.param_groups[0]["params"])
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:  # as torch's `step(fused=True)` makes it
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        steps = torch.stack([state["step"] for state in states])
        for state, step in zip(states, steps.unbind(), strict=True):
            state["step"] = step
        return AdamState(
            parameters=parameters,
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            steps=steps,
            each_step=[state["step"] for state in states],
            source=self.state,
        )


class SearchOptimizer(torch.optim.Optimizer):
    """An optimiser whose step evaluates its loss again, at parameters that it tries.

    The gradient step calls `set_direction` once the parameters have their gradients, checks what that leaves there,
    and then calls `search`. On several devices all it gets are means over the ranks, so all of them decide alike.
    """

    found_inf: Tensor | None = None  # set by `NonFiniteGuard`; not 0: the step is left out

    def parameters(self) -> list[nn.Parameter]:
        """Returns the trained parameters, in their order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_direction(self, divergence: Callable[[], Tensor] | None) -> None:
        """Replaces the parameters' gradients by the direction of the search; here they are the direction.

        Args:
            divergence: computes the update's `divergence` on this rank's batch, differentiable; None: it has none.
        """

    def search(self, loss: Tensor, evaluate: Callable[[], tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """Moves the parameters against the direction in `grad`, or leaves them as they are.

        Args:
            loss: before the step, a scalar.
            evaluate: computes loss and divergence at the parameters as they are.

        Returns:
            Metrics of the step.
        """
        raise NotImplementedError


class PopulationOptimizer(SearchOptimizer):
    """An optimiser without gradients: its step draws candidates and is told the loss of each.

    Its update's loss maps a batch and candidates `[P, n]`, all the update's parameters as one vector each, to `[P]`.
    """

    def ask(self) -> Tensor:
        """Returns the candidates `[P, n]` of a generation."""
        raise NotImplementedError

    def tell(self, losses: Tensor) -> dict[str, float]:
        """Moves the parameters by the losses `[P]` of the candidates of the last `ask`; returns metrics.

        A generation whose losses are not all finite moves nothing.
        """
        raise NotImplementedError


def adam_step(
    gradient: Tensor,
    lr: Tensor,
    step: Tensor,
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes one step of Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1), in the form of `torch.optim.Adam`.

    Args:
        step: its number, from 1; a scalar float tensor.

    Returns:
        The new parameter, first and second moment.
    """
    exp_avg = torch.lerp(exp_avg, gradient, 1.0 - betas[0])
    exp_avg_sq = exp_avg_sq * betas[1] + gradient * gradient * (1.0 - betas[1])
    # 1 - beta^t without the cancellation of float32 at small t
    correction1, correction2 = (-torch.expm1(step * math.log(beta)) for beta in betas)
    denominator = exp_avg_sq.sqrt() / correction2.sqrt() + eps
    return parameter - (lr / correction1) * (exp_avg / denominator), exp_avg, exp_avg_sq


def clip_(gradients: Sequence[Tensor | None], max_norm: float) -> Tensor:
    """Scales the gradients down to a global norm, in place, as `torch.nn.utils.clip_grad_norm_`; returns their norm.

    On a CPU, where looking at a number costs nothing, gradients within the norm are left alone.
    """
    found = [gradient for gradient in gradients if gradient is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
    if norm.device.type != "cpu":
        torch._foreach_mul_(found, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    elif (scale := max_norm / (norm.item() + 1e-6)) < 1.0:
        torch._foreach_mul_(found, scale)
    return norm
