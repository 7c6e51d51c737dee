"""Exact moments of functions of a Gaussian input: of Gaussian processes, radial basis functions, sines, linear maps.

Deisenroth and Rasmussen 2011, "PILCO: A Model-Based and Data-Efficient Approach to Policy Search", section 2.2 and
equations 14 to 23; with all steps in Deisenroth's thesis (2010, "Efficient Reinforcement Learning using Gaussian
Processes"), section 2.3 and appendix A. For `x ~ N(m, S)` each function returns the moments of `y = f(x)`,

    mean        E[y]                  [..., E]
    covariance  Cov[y, y]             [..., E, E]
    gain        S^-1 Cov[x, y]        [..., D, E]

The gain is the slope of the best linear prediction of `y` from `x`. It stays finite where `S` is singular, as it is for
a known start, and says how `y` varies with whatever `x` is a part of: `Cov[z, y] = Cov[z, x] gain` (`append`).

`B` is any batch shape, `D` inputs, `E` outputs, `N` points of a process or centres of a policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """A normal distribution: `mean` `[..., D]` and `covariance` `[..., D, D]`."""

    mean: Tensor
    covariance: Tensor

    def take(self, index: Sequence[int]) -> Gaussian:
        """Returns the distribution of some entries."""
        return Gaussian(self.mean[..., index], self.covariance[..., index, :][..., index])


class Moments(NamedTuple):
    """Moments of a function's output; see the head of this file."""

    mean: Tensor
    covariance: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Kernels:
    """Weighted squared-exponential kernels `f_a(x) = sum_i weights[a, i] k_a(x, points[a, i])`, one sum per output.

    `k_a(x, y) = variance[a] exp(-1/2 sum_d (x_d - y_d)^2 / lengthscale[a, d]^2)`. As the posterior of a Gaussian
    process its mean is the sum, its covariance at `x` is `variance[a] - k_a(x, points) precision[a] k_a(points, x)`.

    Attributes:
        points: `[E, N, D]`.
        weights: `[E, N]`.
        lengthscale: `[E, D]`.
        variance: `[E]`.
        precision: `[E, N, N]`, `(K + noise I)^-1`; None: the function is known, as a policy is.
        noise: variance of what is added to each output, `[E]`; None: nothing is.
    """

    points: Tensor
    weights: Tensor
    lengthscale: Tensor
    variance: Tensor
    precision: Tensor | None = None
    noise: Tensor | None = None

    def predict(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance (without noise) at known inputs `[B, D]`, both `[B, E]`."""
        k = self.kernel(inputs)
        mean = torch.einsum("ebn,en->be", k, self.weights)
        if self.precision is None:
            return mean, torch.zeros_like(mean)
        return mean, (self.variance.unsqueeze(-1) - torch.einsum("ebn,enm,ebm->eb", k, self.precision, k)).T

    def kernel(self, inputs: Tensor) -> Tensor:
        """Returns `k_a(inputs, points)`, `[E, B, N]`."""
        scale = self.lengthscale.unsqueeze(1)
        return squared_exponential(inputs / scale, self.points / scale, self.variance)


def squared_exponential(first: Tensor, second: Tensor, variance: Tensor) -> Tensor:
    """Returns kernels `[E, M, N]` of points `[E, M, D]` and `[E, N, D]` in units of the length-scales."""
    # Differences, as `cdist` through a product would lose half of the digits near the diagonal, and its square root has
    # no derivative there.
    square = (first.unsqueeze(2) - second.unsqueeze(1)).square().sum(-1)
    return variance[:, None, None] * (-0.5 * square).exp()


# ---------------------------------------------------------------------- Gaussian processes and radial basis functions
def kernel_moments(x: Gaussian, f: Kernels) -> Moments:
    """Computes the moments of a Gaussian process' output, or a radial basis function's (equations 14 to 23).

    Args:
        x: `[B, D]`.
        f: of `E` outputs. Given the input they are independent; what they have in common comes from its uncertainty.
    """
    nu = f.points - x.mean[..., None, None, :]  # [B, E, N, D]
    scale = f.lengthscale.unsqueeze(1)
    unit, cov = nu / scale, x.covariance.unsqueeze(-3)
    mean, gain = _first_moments(unit, cov, f)
    covariance = _second_moments(unit, cov, f) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    added = f.noise
    if f.precision is not None:
        added = f.variance if added is None else f.variance + added
    return Moments(mean, covariance if added is None else covariance + torch.diag_embed(added), gain)


def _first_moments(unit: Tensor, cov: Tensor, f: Kernels) -> tuple[Tensor, Tensor]:
    """Mean `[B, E]` (equation 14) and gain `[B, D, E]`, of differences in units of the length-scales `[B, E, N, D]`."""
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    inner = cov / (f.lengthscale.unsqueeze(-1) * f.lengthscale.unsqueeze(-2)) + eye  # [B, E, D, D]
    factor = torch.linalg.cholesky(inner)
    solved = torch.cholesky_solve(unit.mT, factor)  # [B, E, D, N]
    root = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # half of the log-determinant
    exponent = f.variance.log().unsqueeze(-1) - root.unsqueeze(-1) - 0.5 * (unit.mT * solved).sum(-2)
    weighted = f.weights * exponent.exp()  # [B, E, N]
    gain = (solved @ weighted.unsqueeze(-1)).squeeze(-1) / f.lengthscale
    return weighted.sum(-1), gain.mT


def _second_moments(unit: Tensor, cov: Tensor, f: Kernels) -> Tensor:
    """`E[f_a(x) f_b(x)]` with the model's uncertainty left out but for `variance[a]`, `[B, E, E]` (equations 20 to 23).

    Of the symmetric matrix each pair of outputs is computed once.
    """
    outputs, size = f.lengthscale.shape
    a, b = torch.triu_indices(outputs, outputs, device=cov.device)
    inverse = f.lengthscale.square().reciprocal()
    eye = torch.eye(size, dtype=cov.dtype, device=cov.device)
    inner = cov * (inverse[a] + inverse[b]).unsqueeze(-2) + eye  # R, [B, P, D, D]
    middle = torch.linalg.solve(inner, cov.expand_as(inner))
    root = 0.5 * torch.linalg.slogdet(inner)[1]
    log_kernel = f.variance.log().unsqueeze(-1) - 0.5 * unit.square().sum(-1)  # [B, E, N]
    z = unit / f.lengthscale.unsqueeze(1)
    left, right = z[..., a, :, :], z[..., b, :, :]  # [B, P, N, D]
    left_moved, right_moved = left @ middle, right @ middle
    of_left = log_kernel[..., a, :] + 0.5 * (left_moved * left).sum(-1) - root.unsqueeze(-1)
    of_right = log_kernel[..., b, :] + 0.5 * (right_moved * right).sum(-1)
    # exp(of_left_i + of_right_j + left_i^T middle right_j), whose sum is made by the product.
    one = torch.ones_like(of_left).unsqueeze(-1)
    rows = torch.cat([left_moved, of_left.unsqueeze(-1), one], -1)
    columns = torch.cat([right, one, of_right.unsqueeze(-1)], -1)
    q = (rows @ columns.mT).exp()  # [B, P, N, N]
    pairs = torch.einsum("...pn,pn->...p", (q @ f.weights[b].unsqueeze(-1)).squeeze(-1), f.weights[a])
    where = torch.empty(outputs, outputs, dtype=torch.long, device=cov.device)
    where[a, b] = where[b, a] = torch.arange(len(a), device=cov.device)
    moments = pairs[..., where]
    if f.precision is None:
        return moments
    of_model = (q[..., where.diagonal(), :, :] * f.precision).sum((-2, -1))
    return moments - torch.diag_embed(of_model)


# ---------------------------------------------------------------------- linear maps and sines
def linear_moments(x: Gaussian, matrix: Tensor, offset: Tensor) -> Moments:
    """Computes the moments of `matrix x + offset`, matrix `[E, D]`, offset `[E]`."""
    mean = x.mean @ matrix.T + offset
    gain = matrix.T.expand(*mean.shape[:-1], *matrix.T.shape)
    return Moments(mean, matrix @ x.covariance @ matrix.T, gain)


def sine_moments(x: Gaussian) -> Moments:
    """Computes the moments of `sin x`, entry by entry (thesis, appendix A.1)."""
    variance = x.covariance.diagonal(dim1=-2, dim2=-1)
    mean = (-0.5 * variance).exp() * x.mean.sin()
    total = variance.unsqueeze(-1) + variance.unsqueeze(-2)
    difference = x.mean.unsqueeze(-1) - x.mean.unsqueeze(-2)
    added = x.mean.unsqueeze(-1) + x.mean.unsqueeze(-2)
    product = (x.covariance - 0.5 * total).exp() * difference.cos() - (-x.covariance - 0.5 * total).exp() * added.cos()
    covariance = 0.5 * product - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    return Moments(mean, covariance, torch.diag_embed((-0.5 * variance).exp() * x.mean.cos()))


def angle_moments(x: Gaussian) -> Moments:
    """Computes the moments of `(sin x, cos x)`, `[..., 2 D]`: the cosine is a sine a quarter of a turn later."""
    size = x.mean.shape[-1]
    eye = torch.eye(size, dtype=x.mean.dtype, device=x.mean.device)
    quarter = torch.zeros(2 * size, dtype=x.mean.dtype, device=x.mean.device)
    quarter[size:] = 0.5 * math.pi
    return chain(linear_moments(x, torch.cat([eye, eye]), quarter), sine_moments)


# ---------------------------------------------------------------------- compositions
def chain(inner: Moments, function: Callable[[Gaussian], Moments]) -> Moments:
    """Computes the moments of a function of an output that is taken for Gaussian, with the gain of the first input.

    Args:
        inner: of the output.
        function: maps a `Gaussian` to `Moments`.
    """
    outer = function(Gaussian(inner.mean, inner.covariance))
    return Moments(outer.mean, outer.covariance, inner.gain @ outer.gain)


def append(x: Gaussian, moments: Moments, index: Sequence[int] | None = None) -> Gaussian:
    """Returns the joint distribution of an input and what is a function of it, `[..., D + E]`.

    Args:
        x: `[..., D]`.
        moments: of the function.
        index: the entries of `x` that the function depends on; None: all.
    """
    of_input = x.covariance if index is None else x.covariance[..., index]
    cross = of_input @ moments.gain  # [..., D, E]
    upper = torch.cat([x.covariance, cross], -1)
    lower = torch.cat([cross.mT, moments.covariance], -1)
    return Gaussian(torch.cat([x.mean, moments.mean], -1), torch.cat([upper, lower], -2))


def add_change(x: Gaussian, joint: Gaussian, change: Moments, index: Sequence[int]) -> Gaussian:
    """Returns the distribution of `x + change` (equations 10 to 12), symmetric to the last bit.

    Args:
        x: the first entries of `joint`, `[..., D]`.
        joint: what the change is a function of.
        change: its moments, of `D` outputs.
        index: the entries of `joint` that it depends on.
    """
    size = x.mean.shape[-1]
    cross = joint.covariance[..., :size, :][..., index] @ change.gain
    covariance = x.covariance + change.covariance + cross + cross.mT
    return Gaussian(x.mean + change.mean, 0.5 * (covariance + covariance.mT))
