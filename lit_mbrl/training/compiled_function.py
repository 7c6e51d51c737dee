"""A function of tensors that is compiled where that is possible, for work beside the training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn


class CompiledFunction:
    """Calls a function's compiled form; from the first failure on, of which a line says why, the function itself.

    Random operations draw from eager's generator, so both ways use the same random numbers; what differs is rounding.
    Every shape of the inputs is compiled by itself, so that what a call computes does not depend on earlier calls.

    Args:
        function: of tensors, to tensors, without side effects.
        name: of what it does, for the message.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function, self._name = function, name
        self._compiled: Callable[..., Any] | None = torch.compile(
            function, dynamic=False, options={"fallback_random": True}
        )

    def __call__(self, *inputs: Any) -> Any:
        if self._compiled is None:
            return self._function(*inputs)
        try:
            return self._compiled(*inputs)
        except Exception as error:  # an error of the function itself comes again, from its own call
            self._compiled = None
            reason = str(error).strip().partition("\n")[0]
            rank_zero_warn(f"model.compile: {self._name} runs eagerly, since {type(error).__name__}: {reason}")
            return self._function(*inputs)
