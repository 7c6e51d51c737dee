"""An ensemble of multi-layer perceptrons as one module: a product per layer for all members together.

Legend: `E` members, `B` batch, `K` chosen members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["swish", "relu", "tanh"]
Initialization = Literal["truncated_normal", "uniform"]
MemberData = Literal["shares", "batch"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"swish": F.silu, "relu": F.relu, "tanh": torch.tanh}
# Rows that a grouped pass takes at a time, so that the activations of a layer stay in a core's cache.
_ROWS = 2048


class EnsembleMLP(nn.Module):
    """`E` perceptrons of the same shape with weights `[E, in, out]` and biases `[E, 1, out]`; the last layer is linear.

    By default weights start from a normal distribution of standard deviation `1 / (2 sqrt(in))`, cut off at twice that,
    and biases at zero: PETS' and MBPO's choice (arXiv 1805.12114, 1906.08253; from their public code). `"uniform"` is
    what `nn.Linear`, and so `MLP`, starts from: weights and biases between plus and minus `1 / sqrt(in)`.

    With mixed precision (autocast) the last layer stays in float32, as `MLP`'s does.

    Args:
        members: number `E` of perceptrons.
        hidden: hidden layer sizes; empty: one linear layer.
        activation: between the layers.
        initialization: distribution that the weights start from.
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: Activation = "swish",
        initialization: Initialization = "truncated_normal",
    ) -> None:
        super().__init__()
        self.members, self.activation = members, activation
        shapes = list(pairwise([in_features, *hidden, out_features]))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(members, *shape)) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, fan_out)) for _, fan_out in shapes)
        for weight, bias, (fan_in, _) in zip(self.weights, self.biases, shapes, strict=True):
            bound = fan_in**-0.5
            if initialization == "uniform":
                nn.init.uniform_(weight, -bound, bound)
                nn.init.uniform_(bias, -bound, bound)
            else:
                nn.init.trunc_normal_(weight, std=0.5 * bound, a=-bound, b=bound)

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Every member on its own rows `[E, B, in]` or on shared ones `[B, in]`: `[E, B, out]`.

        Args:
            x: inputs.
            members: indices `[K]` of the members asked; None: all. The first axis is `K` then.
        """
        weights, biases = list(self.weights), list(self.biases)
        if members is not None:
            weights, biases = [weight[members] for weight in weights], [bias[members] for bias in biases]
        if x.ndim == 2:
            x = x.expand(weights[0].shape[0], *x.shape)
        activation = ACTIVATIONS[self.activation]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = activation(torch.baddbmm(bias, x, weight))
        return _in_float32(x, lambda x: torch.baddbmm(biases[-1], x, weights[-1]))

    def grouped(self, x: Tensor, counts: Sequence[int], members: Sequence[int]) -> Tensor:
        """Each row through one member only: `[B, in]` to `[B, out]`.

        Args:
            x: rows sorted by their member.
            counts: how many rows each member in turn takes; they add up to B.
            members: the member of each count.
        """
        outputs = [
            self._single(rows, member)
            for group, member in zip(x.split(list(counts)), members, strict=True)
            for rows in group.split(_ROWS)
            if len(rows)
        ]
        return torch.cat(outputs)

    def l2(self, decays: Sequence[float]) -> Tensor:
        """`sum_l decay_l / 2 |W_l|^2` of each member, `[E]`: weight decay as part of the loss; biases are left out."""
        terms = [0.5 * decay * w.square().sum((1, 2)) for decay, w in zip(decays, self.weights, strict=True)]
        return torch.stack(terms).sum(0)

    def _single(self, x: Tensor, member: int) -> Tensor:
        *hidden, (weight, bias) = [(w[member], b[member]) for w, b in zip(self.weights, self.biases, strict=True)]
        activation = ACTIVATIONS[self.activation]
        for w, b in hidden:
            x = activation(torch.addmm(b, x, w))
        return _in_float32(x, lambda x: torch.addmm(bias, x, weight))


def member_rows(rows: Tensor, members: int, data: MemberData) -> Tensor:
    """Each of `E` members' rows of a batch `[B, ...]`: its share `[E, B / E, ...]`, or all of them `[E, B, ...]`.

    Rows of a batch are drawn independently, so any split into shares is a random one.
    """
    return rows.unflatten(0, (members, -1)) if data == "shares" else rows.expand(members, *rows.shape)


def _in_float32(x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """The last layer, in float32 where autocast has halved the precision of what is before it."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return layer(x)
    with torch.autocast(device, enabled=False):
        return layer(x.float())
