"""A convolutional LSTM: Shi et al. 2015 (arXiv 1506.04214v2), eq. 3 without its peepholes.

    i, f, o = sigmoid(W * [x, h] + b)    g = tanh(W * [x, h] + b)    c' = f c + i g    h' = o tanh(c')

`*` is a convolution that keeps the size. `N` sequences of `T` maps `[C, h, w]`, `D` channels of the state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvLSTM(nn.Module):
    """Takes in sequences of maps, from a state of zeros.

    Args:
        channels: C.
        hidden: D.
        kernel: side of the convolutions, odd.
        numbers: V, which each step has beside its map; they are the same at every pixel.
    """

    def __init__(self, channels: int, hidden: int, kernel: int = 3, numbers: int = 0) -> None:
        super().__init__()
        self.hidden = hidden
        self.numbers = nn.Linear(numbers, 4 * hidden, bias=False) if numbers else None
        self.input = nn.Conv2d(channels, 4 * hidden, kernel, padding=kernel // 2)
        self.state = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)
        with torch.no_grad():  # the state is kept at first
            assert self.input.bias is not None
            self.input.bias.zero_()
            self.input.bias[hidden : 2 * hidden] = 1.0

    def forward(self, maps: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Returns `h` `[N, D, h, w]` after the last of `[N, T, C, h, w]`, and of numbers `[N, T, V]`, if it has any."""
        # What inputs add to the gates is one convolution of all steps.
        inputs = self.input(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        if self.numbers is not None:
            inputs = inputs + self.numbers(numbers)[..., None, None]
        hidden = cell = None
        for t in range(maps.shape[1]):
            gates = inputs[:, t] if hidden is None else inputs[:, t] + self.state(hidden)
            write, keep, show, new = gates.split(self.hidden, 1)
            cell = write.sigmoid() * new.tanh() + (0.0 if cell is None else keep.sigmoid() * cell)
            hidden = show.sigmoid() * cell.tanh()
        assert hidden is not None
        return hidden
