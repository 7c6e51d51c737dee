"""Multi-layer perceptron and its initialiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class MLP(nn.Sequential):
    """Linear layers with an activation between them; the last layer is linear.

    Maps `[..., in_features]` to `[..., out_features]`. An empty `hidden` gives a single linear layer.

    With mixed precision (autocast) the hidden layers are in half precision, and the last layer in float32. What comes
    out are values, log standard deviations, predicted observations and logits: bfloat16 has 8 significant bits, which
    would round a value of 300 to a multiple of 2. All that follows, up to the losses, is in float32 then.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([in_features, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers, nn.Linear(hidden[-1] if hidden else in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self)

    @staticmethod
    def finish(x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
        """The last `layers` of a perceptron, the linear one in float32; the caller has computed what is before them."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return apply_layers(x, layers)
        *hidden, last = layers
        for layer in hidden:
            x = layer(x)
        with torch.autocast(device, enabled=False):
            return last(x.float())


def call_layers(x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    """Computes what layers, one after the other, make of `x`."""
    for layer in layers:
        x = layer(x)
    return x


apply_layers = call_layers  # or `training.fast_path.apply_layers`, while a run takes its bypasses


def orthogonal_(module: M, gain: float = 1.0) -> M:
    """Orthogonal weights times `gain` and zero biases for every `nn.Linear` in `module`, in place; returns `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
