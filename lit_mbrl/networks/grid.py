"""A convolutional network of images of a few pixels, as the games of imagination-augmented agents are.

Weber et al. 2017 (arXiv 1707.06203v2), appendix: convolutions with kernels of 3 and ReLU, then a linear layer. All keep
the image's size here, since none of its pixels is like its neighbour. Weights are orthogonal, with a gain of sqrt(2),
and biases zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt, Rule

Planes = Annotated[
    tuple[int, ...], Rule("integers > 0, one per convolution", lambda sizes: len(sizes) > 0 and min(sizes) > 0)
]


@options(frozen=True, eq=True, repr=True)
class GridEncoder:
    """The sizes of a `Grid`, as a configuration says them."""

    section: ClassVar[str] = "model.encoder"

    convolutions: Planes = (32, 32)
    """Channels of the convolutions with a kernel of 3."""
    units: PositiveInt = 256
    """Size of the last layer."""

    def build(self, observation_shape: Sequence[int]) -> Grid:
        """The network for images of a shape."""
        return Grid(observation_shape, self.units, self.convolutions)


class Grid(nn.Module):
    """Features of small images: `[..., C, h, w]` uint8 to `[..., F]`, not negative.

    Args:
        observation_shape: C, h, w of an image.
        features: F, size of the last layer.
        convolutions: channels of each.
    """

    def __init__(
        self, observation_shape: Sequence[int], features: int = 256, convolutions: Sequence[int] = (32, 32)
    ) -> None:
        super().__init__()
        planes, height, width = observation_shape
        self.features = features
        self.convolutions = grid_convolutions(planes, convolutions)
        self.last = orthogonal_layer(nn.Linear(convolutions[-1] * height * width, features))

    def forward(self, pixels: Tensor) -> Tensor:
        flat = pixels.reshape(-1, *pixels.shape[-3:]).to(self.last.weight.dtype).mul_(1.0 / 255.0)
        features = F.relu_(self.last(self.convolutions(flat).flatten(1)))
        return features.view(*pixels.shape[:-3], self.features)


def grid_convolutions(planes: int, convolutions: Sequence[int]) -> nn.Sequential:
    """Returns convolutions with kernels of 3, each with ReLU, of images `[N, planes, h, w]`."""
    layers: list[nn.Module] = []
    for before, after in pairwise([planes, *convolutions]):
        layers += [orthogonal_layer(nn.Conv2d(before, after, 3, padding=1)), nn.ReLU()]
    return nn.Sequential(*layers)


def orthogonal_layer(layer: nn.Conv2d | nn.Linear, gain: float = math.sqrt(2.0)) -> nn.Conv2d | nn.Linear:
    """Makes the weights of a layer orthogonal and its biases zero, in place; returns it."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
