"""Convolutional encoder and decoder of 64x64 images: World Models' (Ha and Schmidhuber 2018), PlaNet's and Dreamer's.

Legend: `N` images, `C` channels, `F` features. Both work in the memory format `channels_last`, which CPUs' and GPUs'
convolutions prefer; the shapes stay `[N, C, 64, 64]`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Images that a CPU's convolutions take at a time, so that the activations between two layers stay in its caches.
_CHUNK = 100


def normalize_image(image: Tensor) -> Tensor:
    """uint8 `[..., C, h, w]` to float32 in [-0.5, 0.5], as the networks see it: `x / 255 - 0.5`."""
    return image.float().div_(255.0).sub_(0.5)


def quantize_image(image: Tensor, bits: int, dither: bool) -> Tensor:
    """uint8 `[..., C, h, w]` to float32 in [-0.5, 0.5] with colours of so many bits, as Glow and PlaNet see it.

    Args:
        dither: add uniform noise as wide as a bin; otherwise each colour is the middle of its bin.
    """
    bins = 2**bits
    colour = (image >> (8 - bits)).float()
    colour += torch.rand_like(colour) if dither else 0.5
    return colour.div_(bins).sub_(0.5)


def to_uint8(image: Tensor) -> Tensor:
    """The inverse of `normalize_image`: what lies outside of [-0.5, 0.5] is cut off."""
    return image.detach().float().add(0.5).mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)


class ConvEncoder(nn.Sequential):
    """Images `[N, C, 64, 64]` in [-0.5, 0.5] to features `[N, 32 * depth]`: four layers of kernel 4 and stride 2.

    The sides go 64, 31, 14, 6, 2 and the channels `depth` times 1, 2, 4, 8; ReLU after each (Dreamer v1, `depth` 32).

    Args:
        channels: C.
        depth: channels of the first layer.
    """

    def __init__(self, channels: int, depth: int = 32) -> None:
        sizes = [channels, depth, 2 * depth, 4 * depth, 8 * depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2), nn.ReLU()]
        super().__init__(*layers)
        self.out_features = 32 * depth
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        return _in_chunks(self._encode, image)

    def _encode(self, image: Tensor) -> Tensor:
        features = super().forward(image.contiguous(memory_format=torch.channels_last))
        return features.contiguous().flatten(1).float()  # [N, 8 depth, 2, 2] -> [N, 32 depth]


class ConvDecoder(nn.Module):
    """Features `[N, F]` to images `[N, C, 64, 64]`, unbounded: a linear layer and four transposed convolutions.

    Kernels 5, 5, 6, 6 with stride 2; the sides go 1, 5, 13, 30, 64 (Dreamer v1, `depth` 32). The first of them sees one
    pixel, where it is a matrix product, and nothing lies between it and the linear layer: both are one product here, of
    F by 100 `depth` instead of 32 `depth` by 100 `depth`.

    With mixed precision (autocast) the last layer stays in float32, as `MLP`'s does.

    Args:
        in_features: F.
        channels: C.
        depth: an eighth of the channels of the deepest layer's counterpart in the encoder.
    """

    def __init__(self, in_features: int, channels: int, depth: int = 32) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, 32 * depth)
        self.first = nn.ConvTranspose2d(32 * depth, 4 * depth, kernel_size=5, stride=2)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(4 * depth, 2 * depth, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * depth, depth, kernel_size=6, stride=2),
            nn.ReLU(),
        )
        self.last = nn.ConvTranspose2d(depth, channels, kernel_size=6, stride=2)
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        kernel = self.first.weight.flatten(1)  # [32 depth, 4 depth * 25]
        assert self.first.bias is not None
        weight = kernel.t() @ self.dense.weight  # [4 depth * 25, F]
        bias = self.dense.bias @ kernel + self.first.bias.repeat_interleave(25)
        return _in_chunks(lambda rows: self._decode(rows, weight, bias), features)

    def _decode(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = F.relu(F.linear(features, weight, bias)).unflatten(1, self.first.weight.shape[1:])
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        with torch.autocast(x.device.type, enabled=False):
            return _by_phases(x.float(), self.last)


def _by_phases(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Computes a transposed convolution of stride 2 with an even kernel, `[N, C, h, w]` to `[N, C', 2h + k - 2, ...]`.

    Every second pixel of a row, and every second row, is an ordinary convolution of its own with half the kernel. The
    four of them at once are faster than the transposed one where it has few output channels: 1.4 times on a CPU.
    """
    weight, bias = layer.weight, layer.bias  # [C, C', k, k]
    assert bias is not None
    half = weight.shape[-1] // 2
    phases = weight.unflatten(3, (half, 2)).unflatten(2, (half, 2)).flip(2, 4)  # [C, C', half, 2, half, 2]
    kernel = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias.repeat_interleave(4), padding=half - 1), 2)


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, on a CPU a few rows at a time."""
    if x.device.type != "cpu" or len(x) <= _CHUNK:
        return function(x)
    return torch.cat([function(rows) for rows in x.split(_CHUNK)])


def glorot_(module: nn.Module) -> nn.Module:
    """Keras' initialisation, which the public codes of PlaNet and Dreamer have: Glorot-uniform kernels, zero biases.

    The recurrent kernel of a `nn.GRUCell` is orthogonal. In place; returns `module`.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GRUCell):
            nn.init.xavier_uniform_(layer.weight_ih)
            nn.init.orthogonal_(layer.weight_hh)
            nn.init.zeros_(layer.bias_ih)
            nn.init.zeros_(layer.bias_hh)
    return module
