"""Makes losses traceable: functions of tensors, with gradients and random numbers in sight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node


class _Call(nn.Module):
    """A function that reads a module's tensors, as the `forward` that `functional_call` needs."""

    def __init__(self, module: nn.Module, function: Callable[[], Tensor]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self) -> Tensor:
        return self.function()


def value_and_gradients(
    module: nn.Module, tensors: dict[str, Tensor], trained: Sequence[str], loss_of: Callable[[], Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Computes a loss, and its gradients, with these tensors in the place of the module's parameters and buffers.

    Args:
        tensors: by name; they are constants but for the trained ones.
        trained: names of the tensors that the gradients are in.
        loss_of: computes the scalar from the module and whatever else.
    """
    leaves = {name: value.detach() for name, value in tensors.items()}
    for name in trained:
        leaves[name].requires_grad_(True)
    named = {f"module.{name}": leaf for name, leaf in leaves.items()}
    with torch.enable_grad():
        # A module that two parts share has one name here, and its one tensor.
        loss = functional_call(_Call(module, loss_of), named, (), tie_weights=False)
        return loss, torch.autograd.grad(loss, [leaves[name] for name in trained], materialize_grads=True)


def lift_random_ops(graph: GraphModule) -> tuple[list[Callable[[], Tensor]], list[Tensor]]:
    """Makes the graph's draws of random numbers its last inputs.

    Returns:
        Functions that draw them, in the graph's order, which is that of the eager code; and tensors of their shapes.
    """
    draws: list[Callable[[], Tensor]] = []
    examples: list[Tensor] = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        draw = _draw(node)
        if draw is None:
            continue
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"noise_{len(draws)}")
        last.meta = dict(node.meta)
        value = node.meta["val"]
        examples.append(torch.zeros(value.shape, dtype=value.dtype, device=value.device))
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
        draws.append(draw)
    graph.recompile()
    return draws, examples


def _draw(node: Node) -> Callable[[], Tensor] | None:
    """The draw without the graph, or None if its distribution is computed in the graph."""
    aten = torch.ops.aten
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    like = {aten.randn_like.default: aten.randn.default, aten.rand_like.default: aten.rand.default}
    if target in like:
        value = node.meta["val"]
        target, args = like[target], (list(value.shape),)
        kwargs = {"dtype": value.dtype, "device": value.device}
    if any(isinstance(argument, Node) for argument in (*args, *kwargs.values())):
        return None
    return lambda: target(*args, **kwargs)
