"""A multi-layer perceptron whose weights are one vector, so that many perturbed copies of it run in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mbrl.networks.ensemble import ACTIVATIONS, Activation


class FlatMLP(nn.Module):
    """Linear layers with an activation between them; `weights` `[W]` has matrix `[in, out]` and bias of each in turn.

    Each column of a matrix starts from a random direction, of length 1 or, in the last layer, of length `last_scale`;
    biases start at 0.

    Args:
        hidden: hidden layer sizes; empty: one linear layer.
        activation: between the layers.
        last_scale: see above.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: Activation = "tanh",
        last_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.shapes = list(pairwise([in_features, *hidden, out_features]))
        self.activation = activation
        parts = []
        for i, (fan_in, fan_out) in enumerate(self.shapes):
            matrix = nn.functional.normalize(torch.randn(fan_in, fan_out), dim=0)
            scale = last_scale if i == len(self.shapes) - 1 else 1.0
            parts += [scale * matrix.flatten(), torch.zeros(fan_out)]
        self.weights = nn.Parameter(torch.cat(parts))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Maps `[..., in]` to `[..., out]`; with noise, `[R, P, in]` to `[R, P, out]`.

        Args:
            noise: `[R, W]`, what is added to the weights for each of R sets of P rows, all sets in one product.
        """
        weights = self.weights if noise is None else self.weights + noise
        sizes = [size for fan_in, fan_out in self.shapes for size in (fan_in * fan_out, fan_out)]
        parts = weights.split(sizes, dim=-1)
        last, activation = len(self.shapes) - 1, ACTIVATIONS[self.activation]
        for i, shape in enumerate(self.shapes):
            matrix, bias = parts[2 * i].unflatten(-1, shape), parts[2 * i + 1]
            x = (
                torch.addmm(bias, x.flatten(0, -2), matrix).unflatten(0, x.shape[:-1])
                if noise is None
                else (torch.baddbmm(bias.unsqueeze(1), x, matrix))
            )
            x = x if i == last else activation(x)
        return x
