"""The convolutional network of IMPALA (Espeholt et al. 2018, arXiv 1802.01561v3, figure 3 right, without its LSTM).

Three stages with 16, 32 and 32 channels, each a 3x3 convolution, a 3x3 max-pooling of stride 2 and two residual
blocks `x + conv(relu(conv(relu(x))))`, then a linear layer of 256 features. It is the network of Procgen's paper (Cobbe
et al. 2020, arXiv 1912.01588v2): 622,144 parameters for its images, 626,256 with heads for 15 actions and a value.

Departure: Procgen's code has Glorot's uniform weights. Ours are orthogonal, with zero biases and a gain of 1, which
gives features of the same size. With a gain of sqrt(2) they, and so a value's first guesses, are five times as large,
and PPO with a clipped value takes a dozen rollouts to correct those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt, Rule


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(relu(x))))`, [B, C, h, w] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # The first activation has to leave x alone, which is added below; the second is applied in place.
        return self.second(F.relu_(self.first(F.relu(x)))).add_(x)


class ImpalaStage(nn.Sequential):
    """Convolution, max-pooling and two residual blocks: [B, C, h, w] to [B, channels, ceil(h / 2), ceil(w / 2)]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            ResidualBlock(channels),
            ResidualBlock(channels),
        )


@options(frozen=True, eq=True, repr=True)
class ImpalaEncoder:
    """The sizes of an `Impala`, as a configuration says them."""

    section: ClassVar[str] = "model.encoder"

    features: PositiveInt = 256
    """Size of the last layer."""
    channels: Annotated[
        tuple[int, ...], Rule("integers > 0, one per stage", lambda sizes: len(sizes) > 0 and min(sizes) > 0)
    ] = (16, 32, 32)
    """Channels of the stages."""
    channels_last: bool = True
    """Keep activations as [B, h, w, C] in memory, see `Impala`."""

    def build(self, observation_shape: Sequence[int]) -> Impala:
        """The network for images of a shape."""
        return Impala(observation_shape, self.features, self.channels, self.channels_last)


class Impala(nn.Module):
    """Features of images: `[..., C, h, w]` uint8 to `[..., F]`, not negative.

    The division by 255 is inside, so images stay bytes up to here. With mixed precision (autocast) everything is in
    half precision; what comes after is the heads' own affair.

    Args:
        observation_shape: C, h, w of an image.
        features: F, size of the last layer.
        channels: of the stages.
        channels_last: keep activations as [B, h, w, C] in memory. The results are the same up to rounding; on a CPU the
            convolutions are faster.

    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        features: int = 256,
        channels: Sequence[int] = (16, 32, 32),
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        planes, height, width = observation_shape
        self.features = features
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.stages = nn.Sequential(*(ImpalaStage(a, b) for a, b in pairwise([planes, *channels])))
        for _ in channels:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        self.last = nn.Linear(channels[-1] * height * width, features)
        self._initialise()
        self.stages.to(memory_format=self.format)

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        batch_shape = pixels.shape[:-3]
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        x = flat.to(self.last.weight.dtype, memory_format=self.format).mul_(1.0 / 255.0)
        x = F.relu_(self.stages(x)).flatten(1)
        return F.relu_(self.last(x)).view(*batch_shape, self.features)
