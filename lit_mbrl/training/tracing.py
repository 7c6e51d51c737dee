"""Makes losses traceable: functions of tensors, with gradients and random numbers in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.stateless import _reparametrize_module


@contextmanager
def functional_gradient(
    module: nn.Module, tensors: dict[str, Tensor], trained: Sequence[str]
) -> Iterator[Callable[[Tensor], tuple[Tensor, ...]]]:
    """While the module has these tensors for its parameters and buffers; yields what maps a loss to its gradients.

    Args:
        tensors: by name; they are constants but for the trained ones.
        trained: names of the tensors that the gradients are in.
    """
    leaves = {name: value.detach() for name, value in tensors.items()}
    for name in trained:
        leaves[name].requires_grad_(True)
    wanted = [leaves[name] for name in trained]
    with _reparametrize_module(module, leaves), torch.enable_grad():
        yield lambda loss: torch.autograd.grad(loss, wanted, materialize_grads=True)


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
