"""A loss and its gradients as a compiled graph, for the many equal steps of a fit.

    frames, the module's parameters and buffers  -->  [ loss -> gradient ]  -->  loss, .grad of the parameters

What follows, the check for NaN, clipping and Adam, is the eager step's. A fit of an ensemble gains a fifth
(`benchmarks/studies/ensemble.py`): its matrix products stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lit_mbrl.training import compiled
from lit_mbrl.training.compiled import CompileError
from lit_mbrl.training.tracing import lift_random_ops, value_and_gradients

Loss = Callable[[TensorDictBase], Tensor]


class CompiledLoss:
    """Computes a loss and the gradients of some parameters, with one graph for each shape of the batch.

    Args:
        module: has all the tensors that the loss reads besides its frames.
        loss: maps frames to a scalar.
        parameters: of the module; what the gradients are in.
    """

    def __init__(self, module: nn.Module, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        self._module, self._loss, self._parameters = module, loss, list(parameters)
        self._graphs: dict[torch.Size, tuple[list[Any], list[Callable[[], Tensor]], Callable[..., Any]]] = {}

    def __call__(self, frames: TensorDictBase) -> Tensor:
        """The loss; the gradients are in the parameters' `.grad`.

        Raises:
            CompileError: the loss has no graph; nothing has been written.
        """
        if frames.batch_size not in self._graphs:
            try:
                self._graphs[frames.batch_size] = self._compile(frames)
            except Exception as error:  # an error of the loss itself comes again, from the eager step
                reason = str(error).strip().split("\n")[0]
                raise CompileError(f"{type(error).__name__}: {reason}") from error
        keys, noise, call = self._graphs[frames.batch_size]
        # Autocast, if there is any, has been traced.
        with torch.no_grad(), torch.autocast(frames["action"].device.type, enabled=False):
            loss, *gradients = call(*(frames[key] for key in keys), *(draw() for draw in noise))
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _compile(self, frames: TensorDictBase) -> tuple[list[Any], list[Callable[[], Tensor]], Callable[..., Any]]:
        """Keys of the frames that the graph reads, draws of its noise, and the graph, a function of both."""
        keys = sorted(frames.keys(include_nested=True, leaves_only=True), key=str)
        state = {name: parameter.detach() for name, parameter in self._module.named_parameters()}
        names = {id(parameter): name for name, parameter in self._module.named_parameters()}
        state |= dict(self._module.named_buffers())
        trained = [names[id(parameter)] for parameter in self._parameters]
        batch_size, tensors = frames.batch_size, list(state.values())

        def gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
            batch = TensorDict({}, batch_size)
            for key, value in zip(keys, inputs, strict=False):
                batch[key] = value
            tensors = dict(zip(state, inputs[len(keys) :], strict=True))
            loss, found = value_and_gradients(self._module, tensors, trained, lambda: self._loss(batch))
            return loss.detach(), *found

        example = [frames[key] for key in keys] + tensors
        graph = make_fx(gradients, tracing_mode="fake")(*example)
        noise, drawn = lift_random_ops(graph)
        call = compiled.inductor(graph, example + drawn)
        count = len(keys)
        return keys, noise, lambda *inputs: call(*inputs[:count], *tensors, *inputs[count:])
