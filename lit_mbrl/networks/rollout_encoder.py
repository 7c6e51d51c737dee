"""Encodes imagined rollouts: Weber et al. 2017 (arXiv 1707.06203v2), section 3.2.

The encoder reads a rollout from its last step to its first, as if rewards were added up backwards, so that what comes
first is fresh in its memory. `N` rollouts of `T` frames `[K, h, w]`, `R` classes of rewards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.conv_lstm import ConvLSTM
from lit_mbrl.networks.grid import grid_convolutions, orthogonal_layer


class RolloutEncoder(nn.Module):
    """A vector of each rollout: a convolution of each frame, a convolutional LSTM backwards in time, a linear layer.

    Args:
        planes: K.
        rewards: R.
        height: h.
        width: w.
        channels: of the convolution and of the LSTM.
        units: E, numbers of the vector.
    """

    def __init__(self, planes: int, rewards: int, height: int, width: int, channels: int, units: int) -> None:
        super().__init__()
        self.frame = grid_convolutions(planes, [channels])
        self.lstm = ConvLSTM(channels, channels, numbers=rewards)
        self.last = orthogonal_layer(nn.Linear(channels * height * width, units))

    def forward(self, frames: Tensor, rewards: Tensor) -> Tensor:
        """Vectors `[N, E]`, not negative, of frames `[N, T, K, h, w]` and rewards as one-hot vectors `[N, T, R]`."""
        maps = self.frame(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return F.relu(self.last(self.lstm(maps.flip(1), rewards.flip(1)).flatten(1)))


class ImaginationEncoder(nn.Module):
    """Features of an observation and of the rollouts from it: encodings of these, and a model-free path, merged.

    Args:
        rollouts: encodes a rollout into E numbers.
        encoding: E.
        actions: A, rollouts of an observation.
        path: of the observation; None: the rollouts alone count.
        features: of the path.
        units: F, features of all.
    """

    def __init__(
        self, rollouts: RolloutEncoder, encoding: int, actions: int, path: nn.Module | None, features: int, units: int
    ) -> None:
        super().__init__()
        self.rollouts, self.path = rollouts, path
        self.merge = orthogonal_layer(nn.Linear(actions * encoding + (features if path else 0), units))

    def forward(self, observation: Tensor, frames: Tensor, rewards: Tensor) -> Tensor:
        """Features `[N, F]` of images, frames `[N, A, T, K, h, w]` and rewards as one-hot vectors `[N, A, T, R]`."""
        encodings = self.rollouts(frames.flatten(0, 1), rewards.flatten(0, 1)).unflatten(0, frames.shape[:2])
        parts = [encodings.flatten(1)]
        if self.path is not None:
            parts.append(self.path(observation))
        return F.relu(self.merge(torch.cat(parts, -1)))
