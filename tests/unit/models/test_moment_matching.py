"""Moments through kernels, sines and linear maps: against samples, closed forms, and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_mbrl.models.moment_matching import (
    Gaussian,
    Kernels,
    Moments,
    add_change,
    angle_moments,
    append,
    chain,
    kernel_moments,
    linear_moments,
    sine_moments,
)

SAMPLES = 1_000_000


def made_up(dim: int = 3, scale: float = 0.5, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    root = scale * torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return Gaussian(torch.randn(dim, generator=generator, dtype=torch.float64), root @ root.T)


def process(dim: int = 3, outputs: int = 2, points: int = 12, uncertain: bool = True, noise: float = 0.01) -> Kernels:
    """The posterior of functions of which a few values are known; each output has points of its own."""
    generator = torch.Generator().manual_seed(1)
    x = 1.5 * torch.randn(outputs, points, dim, generator=generator, dtype=torch.float64)
    lengthscale = 0.8 + torch.rand(outputs, dim, generator=generator, dtype=torch.float64)
    variance = torch.tensor([1.3, 0.4, 2.0][:outputs], dtype=torch.float64)
    kernels = Kernels(x, torch.zeros(outputs, points, dtype=torch.float64), lengthscale, variance)
    k = torch.stack([kernels.kernel(x[e])[e] for e in range(outputs)])
    precision = torch.linalg.inv(k + noise * torch.eye(points, dtype=torch.float64))
    y = torch.randn(outputs, points, 1, generator=generator, dtype=torch.float64)
    weights = (precision @ y).squeeze(-1)
    noises = torch.full((outputs,), noise, dtype=torch.float64)
    return Kernels(x, weights, lengthscale, variance, precision if uncertain else None, noises if uncertain else None)


def sampled(x: Gaussian, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and covariance with the input of a million samples; `function` gives mean and variance."""
    generator = torch.Generator().manual_seed(2)
    root = torch.linalg.cholesky(x.covariance)
    inputs = x.mean + torch.randn(SAMPLES, len(x.mean), generator=generator, dtype=torch.float64) @ root.T
    parts = [function(part) for part in inputs.split(50_000)]
    mean, variance = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    both = torch.cov(torch.cat([inputs, mean], 1).T)
    size = len(x.mean)
    return mean.mean(0), both[size:, size:] + torch.diag(variance.mean(0)), both[:size, size:]


def agree(x: Gaussian, moments: Moments, expected: tuple[Tensor, Tensor, Tensor], within: float = 0.006) -> None:
    """A mean of a million has a standard error of 0.001 standard deviations, a covariance one of 0.002 or less."""
    mean, covariance, cross = expected
    std = covariance.diagonal().sqrt()
    assert ((moments.mean - mean) / std).abs().max() < within
    assert ((moments.covariance - covariance) / std.outer(std)).abs().max() < within
    input_std = x.covariance.diagonal().sqrt()
    assert ((x.covariance @ moments.gain - cross) / input_std.outer(std)).abs().max() < within


@pytest.mark.parametrize("uncertain", [True, False], ids=["process", "radial basis functions"])
def test_kernels_against_samples(uncertain: bool) -> None:
    x, f = made_up(), process(uncertain=uncertain)

    def function(inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = f.predict(inputs)
        return mean, variance + (0.0 if f.noise is None else f.noise)

    agree(x, kernel_moments(x, f), sampled(x, function))


def test_sines_and_angles_against_samples() -> None:
    x = made_up(scale=0.8)
    none = torch.zeros(1, 3, dtype=torch.float64)
    agree(x, sine_moments(x), sampled(x, lambda inputs: (inputs.sin(), none.expand_as(inputs))))
    both = sampled(x, lambda inputs: (torch.cat([inputs.sin(), inputs.cos()], 1), none.repeat(len(inputs), 2)))
    agree(x, angle_moments(x), both)


def test_the_sine_of_a_policy_against_samples() -> None:
    """Exact but for the policy's output, which is taken for Gaussian; of a linear policy it is."""
    x, matrix, offset = made_up(), torch.tensor([[0.5, -1.0, 0.3]], dtype=torch.float64), torch.ones(1).double()
    moments = chain(linear_moments(x, matrix, offset), sine_moments)
    agree(x, moments, sampled(x, lambda inputs: ((inputs @ matrix.T + offset).sin(), torch.zeros(len(inputs), 1))))


def test_linear_maps_in_closed_form() -> None:
    x, matrix, offset = made_up(), torch.randn(2, 3).double(), torch.randn(2).double()
    moments = linear_moments(x, matrix, offset)
    torch.testing.assert_close(moments.mean, matrix @ x.mean + offset)
    torch.testing.assert_close(moments.covariance, matrix @ x.covariance @ matrix.T)
    torch.testing.assert_close(x.covariance @ moments.gain, x.covariance @ matrix.T)


def test_a_process_that_has_seen_a_linear_function_has_a_linear_map_s_moments() -> None:
    """With long length-scales a process goes through its points nearly linearly."""
    x, matrix = made_up(2, 0.3), torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    grid = torch.cartesian_prod(*[torch.linspace(-4, 4, 7, dtype=torch.float64)] * 2)
    scale, variance = torch.full((1, 2), 30.0).double(), torch.full((1,), 500.0).double()
    k = Kernels(grid.unsqueeze(0), torch.zeros(1, 49).double(), scale, variance).kernel(grid)
    precision = torch.linalg.inv(k + 1e-6 * torch.eye(49).double())
    weights = (precision @ (grid @ matrix.T).unsqueeze(0)).squeeze(-1)
    f = Kernels(grid.unsqueeze(0), weights, scale, variance, precision)
    expected = linear_moments(x, matrix, torch.zeros(1).double())
    for found, right in zip(kernel_moments(x, f), expected, strict=True):
        torch.testing.assert_close(found, right, atol=4e-3, rtol=0)


def test_a_known_input_has_the_prediction_s_moments() -> None:
    mean, f = made_up().mean, process()
    moments = kernel_moments(Gaussian(mean, torch.zeros(3, 3).double()), f)
    value, variance = f.predict(mean.unsqueeze(0))
    torch.testing.assert_close(moments.mean, value[0])
    torch.testing.assert_close(moments.covariance, torch.diag(variance[0] + f.noise))
    at = mean.clone().requires_grad_()
    slope = torch.stack(torch.autograd.grad(f.predict(at.unsqueeze(0))[0][0, 0], at))[0]
    torch.testing.assert_close(moments.gain[:, 0], slope)


def test_a_batch_is_each_of_its_rows() -> None:
    rows, f = [made_up(seed=seed) for seed in range(3)], process()
    batch = Gaussian(torch.stack([row.mean for row in rows]), torch.stack([row.covariance for row in rows]))
    for function in (lambda x: kernel_moments(x, f), sine_moments, angle_moments):
        for row, *found in zip(rows, *function(batch), strict=True):
            for value, expected in zip(found, function(row), strict=True):
                torch.testing.assert_close(value, expected)


def test_joints_and_changes_of_linear_maps_in_closed_form() -> None:
    """x, u = A x[:2], then x + B (x, u): all of it is one linear map of x."""
    x, a, b = made_up(), torch.randn(1, 2).double(), torch.randn(3, 3).double()
    joint = append(x, linear_moments(x.take([0, 1]), a, torch.zeros(1).double()), [0, 1])
    to_joint = torch.cat([torch.eye(3).double(), torch.cat([a, torch.zeros(1, 1).double()], 1)])
    torch.testing.assert_close(joint.covariance, to_joint @ x.covariance @ to_joint.T)
    index = [0, 2, 3]
    following = add_change(x, joint, linear_moments(joint.take(index), b, torch.ones(3).double()), index)
    whole = torch.eye(3).double() + b @ to_joint[index]
    torch.testing.assert_close(following.mean, whole @ x.mean + 1)
    torch.testing.assert_close(following.covariance, whole @ x.covariance @ whole.T)
    assert torch.equal(following.covariance, following.covariance.T)


@pytest.mark.parametrize("name", ["process", "functions", "sine", "angle"])
def test_gradients(name: str) -> None:
    x, f = made_up(2), process(2, 2, 4, uncertain=name == "process")
    parts = [f.points, f.weights, f.lengthscale, f.variance]

    def moments(mean: Tensor, root: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        given = Gaussian(mean, root @ root.T)
        if name == "sine":
            return tuple(sine_moments(given))
        if name == "angle":
            return tuple(angle_moments(given))
        return tuple(kernel_moments(given, Kernels(*parts, f.precision, f.noise)))

    inputs = [x.mean, torch.linalg.cholesky(x.covariance), *(parts if name in ("process", "functions") else [])]
    assert torch.autograd.gradcheck(moments, [each.clone().requires_grad_() for each in inputs])
