"""Running mean and standard deviation of observations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RunningNormalizer(nn.Module):
    """`z = (x - mean) / std` with the exact statistics of everything seen so far (`O = dim` features).

    The statistics are float64 buffers: in the state dict, never trained, and left in float64 by `.half()`, `.float()`
    or `.to(dtype)`, which would otherwise round the count and the sum of squares. Device moves work as for any buffer.

    SVG's public code normalises observations this way, with the standard deviation clipped to `[0.1, 10]`; its running
    estimate drops the first sample, ours is the population mean and standard deviation (Chan's merge of two batches).

    Args:
        std_bounds: lowest and highest standard deviation to divide by, in the units of the observation.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, dim: int, std_bounds: tuple[float, float] = (0.1, 10.0)) -> None:
        super().__init__()
        self.dim = dim
        self.std_bounds = std_bounds
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(dim, dtype=torch.float64))  # sum of squared deviations from the mean

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds the rows of `x [..., O]` (any number, also none) to the statistics."""
        rows = x.reshape(-1, self.dim).to(self.mean)
        num = rows.shape[0]
        if num == 0:
            return
        batch_mean = rows.mean(0)
        delta = batch_mean - self.mean
        total = self.count + num
        self.m2 += (rows - batch_mean).square().sum(0) + delta.square() * (self.count * num / total)
        self.mean += delta * (num / total)
        self.count.copy_(total)

    def mean_std(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Mean and clipped population standard deviation, each `[O]`; 0 and 1 before any data."""
        std = (self.m2 / self.count.clamp(min=1.0)).sqrt().clamp(*self.std_bounds)
        std = torch.where(self.count > 0, std, torch.ones_like(std))
        return self.mean.to(dtype, copy=True), std.to(dtype)

    def clipped(self) -> list[tuple[int, float]]:
        """Features whose standard deviation is beyond the bounds, and what it is; those that never change are none."""
        std = (self.m2 / self.count.clamp(min=1.0)).sqrt()
        lowest, highest = self.std_bounds
        beyond = ((std < lowest) & (std > 0)) | (std > highest)
        return [(int(index), float(std[index])) for index in beyond.nonzero().flatten()]

    def forward(self, x: Tensor) -> Tensor:
        """`[..., O]` raw to `[..., O]` normalised, in the dtype of `x`."""
        mean, std = self.mean_std(_working_dtype(x))
        return ((x - mean) / std).to(x.dtype)

    def normalize_all(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`forward` of each, with mean and standard deviation worked out once."""
        mean, std = self.mean_std(_working_dtype(tensors[0]))
        return tuple(((x - mean) / std).to(x.dtype) for x in tensors)

    def inverse(self, z: Tensor) -> Tensor:
        """`[..., O]` normalised to `[..., O]` raw, in the dtype of `z`."""
        mean, std = self.mean_std(_working_dtype(z))
        return (z * std + mean).to(z.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RunningNormalizer:
        def keep_dtype(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        super()._apply(keep_dtype, recurse)
        return self


def _working_dtype(x: Tensor) -> torch.dtype:
    """At least float32: a mean far from zero cancels in half precision."""
    return torch.promote_types(x.dtype, torch.float32)
