"""Gaussian processes: their predictions are GPyTorch's, and their hyperparameters those of the greatest evidence."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbrl.models.gaussian_process import GaussianProcesses, inducing_points, require_gpytorch
from lit_mbrl.utils.errors import OptionError

gpytorch = require_gpytorch("", "")


def data(count: int = 60, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Two functions of three inputs in different units; neither depends on the third."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0, 1.0])
    y = torch.stack([x[:, 0].sin() + (0.15 * x[:, 1]).sin(), 30 * (0.1 * x[:, 1]).cos()], 1)
    return x, y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 30.0])


def reference(process: GaussianProcesses, x: Tensor, y: Tensor, e: int, inducing: Tensor | None = None) -> Any:
    """GPyTorch's process of one output, with its own constraints, at the same hyperparameters."""
    likelihood = gpytorch.likelihoods.GaussianLikelihood(gpytorch.priors.GammaPrior(1.0, 1.0)).double()

    class Model(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(x, y[:, e], likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.base = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=3))
            self.covar_module: Any = self.base
            if inducing is not None:
                self.covar_module = gpytorch.kernels.InducingPointKernel(self.base, inducing, likelihood)

        def forward(self, inputs: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(inputs), self.covar_module(inputs))

    model = Model().double()
    model.base.base_kernel.lengthscale = process.lengthscale[e]
    model.base.outputscale = process.signal[e].square()
    likelihood.noise = process.noise[e].square().clamp(min=2e-4)
    return model


def fitted(count: int = 60, **options: Any) -> tuple[GaussianProcesses, Tensor, Tensor, Any]:
    torch.manual_seed(0)
    process = GaussianProcesses(3, 2, **options)
    x, y = data(count)
    return process, x, y, process.fit(x, y)


def test_predictions_are_gpytorch_s() -> None:
    process, x, y, kernels = fitted()
    inputs = data(25)[0] + 0.3
    mean, variance = kernels.predict(inputs)
    for e in range(2):
        model = reference(process, x, y, e).eval()
        with torch.no_grad():
            expected = model(inputs)
        torch.testing.assert_close(mean[:, e], expected.mean, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(variance[:, e], expected.variance, atol=1e-6, rtol=1e-5)


def test_sparse_predictions_are_gpytorch_s() -> None:
    process, x, y, kernels = fitted(80, max_points=20)
    assert kernels.points.shape == (2, 20, 3)
    inputs = data(25)[0] + 0.3
    mean, variance = kernels.predict(inputs)
    for e in range(2):
        model = reference(process, x, y, e, kernels.points[e]).eval()
        with torch.no_grad(), gpytorch.settings.sgpr_diagonal_correction(False):
            expected = model(inputs)
            prior = model.base(inputs).to_dense().diagonal()
            known = model.covar_module(inputs).to_dense().diagonal()  # k*u k_uu^-1 ku*
        torch.testing.assert_close(mean[:, e], expected.mean, atol=1e-3, rtol=1e-3)
        # GPyTorch's prior variance is that of the inducing points; ours, as FITC's and Titsias' test variance, is k**.
        torch.testing.assert_close(variance[:, e], expected.variance + prior - known, atol=2e-3, rtol=1e-3)


def test_a_sparse_process_of_all_points_is_the_process() -> None:
    process, x, y, _ = fitted(40)
    process.max_points = 39
    sparse = process.posterior(torch.cat([x[:39], x[:1]]), torch.cat([y[:39], y[:1]]))  # the last point twice
    process.max_points = 40
    whole = process.posterior(torch.cat([x[:39], x[:1]]), torch.cat([y[:39], y[:1]]))
    for found, expected in zip(sparse.predict(x + 0.2), whole.predict(x + 0.2), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_evidence_is_that_of_the_normal_distribution() -> None:
    process, x, y, kernels = fitted()
    for e in range(2):
        k = kernels.kernel(x)[e] + process.noise[e].square() * torch.eye(len(x)).double()
        right = torch.distributions.MultivariateNormal(torch.zeros(len(x)).double(), k).log_prob(y[:, e])
        torch.testing.assert_close(process.log_evidence[e], right, atol=1e-3, rtol=0)


def test_hyperparameters_are_better_than_their_neighbours() -> None:
    process, x, y, _ = fitted(restarts=3)
    best = penalized(process, x, y)
    for name in ("lengthscale", "signal", "noise"):
        for factor in (0.9, 1.1):
            hyperparameter = getattr(process, name)
            for index in torch.cartesian_prod(*[torch.arange(size) for size in hyperparameter.shape]).view(
                -1, hyperparameter.ndim
            ):
                kept = hyperparameter.clone()
                hyperparameter[tuple(index)] *= factor
                assert penalized(process, x, y) < best + 1e-2
                hyperparameter.copy_(kept)


def penalized(process: GaussianProcesses, x: Tensor, y: Tensor) -> float:
    total = 0.0
    for e in range(y.shape[1]):
        k = process.posterior(x, y).kernel(x)[e] + process.noise[e].square() * torch.eye(len(x)).double()
        total += float(torch.distributions.MultivariateNormal(torch.zeros(len(x)).double(), k).log_prob(y[:, e]))
    ratio = (process.signal / process.noise).log() / math.log(1000.0)
    length = (process.lengthscale / x.std(0)).log() / math.log(100.0)
    return total - float((ratio**30).sum() + (length**30).sum())


def test_what_plays_no_part_has_a_long_length_scale_and_noise_is_found() -> None:
    process, x, _, _ = fitted(150)
    relevance = process.lengthscale / x.std(0)
    assert (relevance[:, 2] > 5).all() and (relevance[1, 0] > 5) and relevance[0, 0] < 3 and relevance[1, 1] < 3
    torch.testing.assert_close(process.noise, torch.tensor([0.05, 1.5]).double(), rtol=0.2, atol=0)


def test_the_penalty_keeps_noise_above_nothing() -> None:
    x, y = data(noise=0.0)
    for most in (100.0, 1000.0):
        process = GaussianProcesses(3, 2, max_signal_to_noise=most)
        process.fit(x, y)
        assert (process.signal / process.noise < most**1.1).all()
        assert (process.lengthscale / x.std(0) < 100**1.1).all()


def test_units_do_not_matter() -> None:
    x, y = data()
    torch.manual_seed(0)
    one, other = GaussianProcesses(3, 2, restarts=1), GaussianProcesses(3, 2, restarts=1)
    first, second = one.fit(x, y), other.fit(x * 100, y * 0.01)
    torch.testing.assert_close(first.predict(x)[0], 100 * second.predict(100 * x)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.log_evidence, other.log_evidence + len(x) * math.log(0.01), rtol=1e-4, atol=1e-2)


def test_the_next_fit_begins_where_the_last_one_ended() -> None:
    process, x, y, _ = fitted(restarts=1)
    kept = process.noise.clone()
    process.max_iterations = 1
    process.fit(x, y)
    torch.testing.assert_close(process.noise, kept, rtol=1e-2, atol=0)
    fresh = GaussianProcesses(3, 2, restarts=1, max_iterations=1)
    fresh.fit(x, y)
    assert not torch.allclose(fresh.noise, kept, rtol=1e-2)


def test_inducing_points_are_those_that_are_known_least() -> None:
    x = data(30)[0] / torch.tensor([1.0, 10.0, 1.0])
    k = (-0.5 * (x.unsqueeze(1) - x).square().sum(-1)).exp()
    chosen = inducing_points(x, 8).tolist()
    assert len(set(chosen)) == 8
    for i in range(1, 8):
        known = chosen[:i]
        cross = k[:, known]
        left = 1 - (cross @ torch.linalg.inv(k[known][:, known]) * cross).sum(1)
        assert left[chosen[i]] == pytest.approx(float(left.max()), abs=1e-9)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "gpytorch":
            raise ImportError("No module named 'gpytorch'")
        return known(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r"--model.class_path=PILCO: expected GPyTorch .*lit-mbrl\[gp\]"):
        require_gpytorch("model.class_path", "PILCO")
