"""Policies that take a distribution of states as well as a state: PILCO's, squashed by a sine.

Deisenroth and Rasmussen 2011, "PILCO", section 2.2 and 3.1, in units in which actions are from -1 to 1: `u = sin f(x)`,
where `f` is linear or a sum of radial basis functions. Parameters are float64, as moments need it.

`D` inputs, `A` actions, `N` basis functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from lit_mbrl.models.moment_matching import (
    Gaussian,
    Kernels,
    Moments,
    chain,
    kernel_moments,
    linear_moments,
    sine_moments,
    squared_exponential,
)

_TARGET_NOISE = 0.1  # of the basis functions' targets, whose signal is 1


class MomentPolicy(Protocol):
    """A policy `u = sin f(x)`."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns actions `[B, A]` at inputs `[B, D]`."""

    def frozen(self) -> Callable[[Gaussian], Moments]:
        """Returns what computes the moments of the action, `[..., A]`, while the parameters stay as they are.

        `f`'s output is taken for Gaussian.
        """

    def initialize(self, inputs: Tensor) -> None:
        """Draws fresh parameters, given inputs `[B, D]` that have been seen."""


class LinearPolicy(nn.Module):
    """`f(x) = W x + b`."""

    def __init__(self, input_dim: int, action_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(action_dim, input_dim, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(action_dim, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        """See `MomentPolicy`."""
        return (inputs @ self.weight.T + self.bias).sin()

    def frozen(self) -> Callable[[Gaussian], Moments]:
        """See `MomentPolicy`."""
        return lambda x: chain(linear_moments(x, self.weight, self.bias), sine_moments)

    @torch.no_grad()
    def initialize(self, inputs: Tensor) -> None:
        """Draws weights of standard deviation 0.1 in units of the inputs' spread."""
        spread = _spread(inputs)
        self.weight.copy_(0.1 * torch.randn_like(self.weight) / spread)
        self.bias.copy_(0.1 * torch.randn_like(self.bias))


class RBFPolicy(nn.Module):
    """`f_a(x) = sum_i w_ai exp(-1/2 sum_d (x_d - centre_id)^2 / lengthscale_ad^2)`, centres shared by all actions.

    The weights are `(K_a + 0.1^2 I)^-1 target_a`, as of the mean of a Gaussian process whose observations are the
    targets: so the thesis and the authors' public code have it. Targets are on the scale of the action whether
    centres are near each other or not, where free weights would differ by orders of magnitude. For the same reason
    centres and length-scales are in units of the spread of the inputs that `initialize` got.
    """

    unit: Tensor

    def __init__(self, input_dim: int, action_dim: int, num_basis: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(num_basis, input_dim, dtype=torch.float64))
        self.targets = nn.Parameter(torch.zeros(action_dim, num_basis, dtype=torch.float64))
        self.log_lengthscale = nn.Parameter(torch.zeros(action_dim, input_dim, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(input_dim, dtype=torch.float64))

    def kernels(self) -> Kernels:
        """The sum of basis functions, differentiable."""
        lengthscale = self.log_lengthscale.exp()
        scaled = self.centres / lengthscale.unsqueeze(1)
        one = torch.ones(len(lengthscale), dtype=scaled.dtype, device=scaled.device)
        eye = torch.eye(len(self.centres), dtype=scaled.dtype, device=scaled.device)
        factor = torch.linalg.cholesky(squared_exponential(scaled, scaled, one) + _TARGET_NOISE**2 * eye)
        weights = torch.cholesky_solve(self.targets.unsqueeze(-1), factor).squeeze(-1)
        points = (self.centres * self.unit).expand(len(one), -1, -1)
        return Kernels(points, weights, lengthscale * self.unit, one)

    def forward(self, inputs: Tensor) -> Tensor:
        """See `MomentPolicy`."""
        return self.kernels().predict(inputs)[0].sin()

    def frozen(self) -> Callable[[Gaussian], Moments]:
        """See `MomentPolicy`."""
        f = self.kernels()
        return lambda x: chain(kernel_moments(x, f), sine_moments)

    @torch.no_grad()
    def initialize(self, inputs: Tensor) -> None:
        """Puts centres on inputs that have been seen, with targets of standard deviation 0.1."""
        self.unit.copy_(_spread(inputs))
        chosen = inputs[torch.randint(len(inputs), (len(self.centres),))]
        self.centres.copy_(chosen / self.unit + 0.1 * torch.randn_like(self.centres))
        self.targets.copy_(0.1 * torch.randn_like(self.targets))
        self.log_lengthscale.zero_()


def _spread(inputs: Tensor) -> Tensor:
    std = inputs.double().std(0)
    return torch.where(std > 0, std, 1.0)
