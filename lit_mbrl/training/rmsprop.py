"""RMSProp as asynchronous advantage actor-critic has it, with epsilon inside of the root."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RMSProp(torch.optim.Optimizer):
    """An optimiser: `theta <- theta - lr g / sqrt(s + eps)`, `s <- alpha s + (1 - alpha) g^2`.

    Mnih et al. 2016 (arXiv 1602.01783v2), section 4, eq. S2 and S3; `torch.optim.RMSprop` adds epsilon to the root, so
    that the first steps of parameters with small gradients are longer. `s` starts at 0.

    Args:
        lr: eta of the paper.
        alpha: decay of the mean of squares.
        eps: epsilon, in units of a squared gradient.
    """

    found_inf: Tensor | None = None  # set by `NonFiniteGuard`; not 0: the step is left out

    def __init__(self, parameters: Iterable[Any], lr: float = 7e-4, alpha: float = 0.99, eps: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step of every parameter that has a gradient; returns what `closure` does, which is called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters or (self.found_inf is not None and self.found_inf.item()):
                continue
            gradients: list[Tensor] = [parameter.grad for parameter in parameters]
            squares = [self._square(parameter) for parameter in parameters]
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - group["alpha"])
            denominators = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(denominators)
            torch._foreach_addcdiv_(parameters, gradients, denominators, value=-group["lr"])
        return loss

    def _square(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["square_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state["square_avg"]
