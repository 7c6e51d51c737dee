"""Gaussian processes of a change: one per output, with squared-exponential kernels and relevance by dimension.

Deisenroth and Rasmussen 2011, "PILCO", section 2.1; what the paper leaves out is in Deisenroth's thesis (2010,
"Efficient Reinforcement Learning using Gaussian Processes"), chapter 2, and in the authors' public code. Kernels,
evidence and sparse kernels are GPyTorch's; what it has fitted becomes `moment_matching.Kernels`.

- Hyperparameters maximise the evidence minus `(log(signal / noise) / log max_signal_to_noise)^30`, of standard
  deviations, and `(log(lengthscale / spread of the input) / log 100)^30`: walls against infinite ratios, which the data
  of a simulator without noise would have. The power and the constants are the public code's.
- Inputs and outputs are divided by their standard deviations for the fit, and hyperparameters are in units of the data
  afterwards. The prior mean is 0 and no mean is taken off: what has never been seen does not change.
- With more than `max_points` the process is sparse, by `max_points` of the data's own inputs, which are chosen for each
  output where the process knows least given the ones before (a pivoted Cholesky factorisation). The fit maximises
  Titsias' bound (2009) in the place of the evidence; predictions are `k* A k_u` and `k** - k* B k*` with `N` points of
  that number, so that everything behind the fit sees a smaller process. The paper's are Snelson and Ghahramani's, whose
  inputs are free and optimised with the rest.

`N` points, `D` inputs, `E` outputs, all float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from lit_mbrl.models.moment_matching import Kernels, squared_exponential
from lit_mbrl.utils.errors import OptionError

_MAX_LENGTHSCALE = 100.0
_POWER = 30
_JITTER = 1e-8  # of an inducing points' kernel matrix, in units of the variance


class Start(NamedTuple):
    """Where a fit of one output begins, in units of the data's standard deviations: logarithms."""

    lengthscale: Tensor
    signal: Tensor
    noise: Tensor


def require_gpytorch(option: str, value: object) -> Any:
    """Imports GPyTorch.

    Raises:
        OptionError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about what GPyTorch's linear algebra is compiled with
            import gpytorch
    except ImportError as error:
        expected = f"GPyTorch to be installed: pip install 'lit-mbrl[gp]' ({error})"
        raise OptionError(option, value, expected) from error
    return gpytorch


class GaussianProcesses(nn.Module):
    """Independent Gaussian processes of the same inputs; buffers keep the hyperparameters, where the next fit begins.

    Args:
        input_dim: D.
        output_dim: E.
        max_points: the most points of a process that is not sparse, and those of one that is.
        max_signal_to_noise: ratio of standard deviations that the fit keeps well below.
        restarts: of each fit. The first begins where the last fit ended, the others at random points around the
            thesis' (length-scales and signal 1, noise 0.1, in standard deviations of the data).
        max_iterations: of L-BFGS, each.
    """

    lengthscale: Tensor
    signal: Tensor
    noise: Tensor
    fits: Tensor

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        max_points: int = 300,
        max_signal_to_noise: float = 1000.0,
        restarts: int = 2,
        max_iterations: int = 100,
    ) -> None:
        super().__init__()
        self.max_points, self.max_signal_to_noise = max_points, max_signal_to_noise
        self.restarts, self.max_iterations = restarts, max_iterations
        self.register_buffer("lengthscale", torch.ones(output_dim, input_dim, dtype=torch.float64))
        self.register_buffer("signal", torch.ones(output_dim, dtype=torch.float64))  # standard deviations
        self.register_buffer("noise", torch.full((output_dim,), 0.1, dtype=torch.float64))
        self.register_buffer("fits", torch.zeros((), dtype=torch.long))

    def fit(self, inputs: Tensor, outputs: Tensor, notify: Callable[[str], None] = lambda news: None) -> Kernels:
        """Fits hyperparameters and returns the posterior.

        Args:
            inputs: `[N, D]`.
            outputs: `[N, E]`.
            notify: is told what is going on.
        """
        inputs, outputs = inputs.double(), outputs.double()
        x_unit, y_unit = _spread(inputs), _spread(outputs)
        x, y = inputs / x_unit, outputs / y_unit
        evidence = []
        for e in range(y.shape[1]):
            found = [self._maximize(x, y[:, e], start) for start in self._starts(e, x_unit, y_unit[e])]
            best, value = max(found, key=lambda each: each[1])
            with torch.no_grad():
                self.lengthscale[e] = best.lengthscale.exp() * x_unit
                self.signal[e], self.noise[e] = best.signal.exp() * y_unit[e], best.noise.exp() * y_unit[e]
            evidence.append(value - len(x) * float(y_unit[e].log()))
            notify(f"fitting Gaussian process {e + 1} of {y.shape[1]} to {len(x)} points")
        self.fits += 1
        self.log_evidence = torch.tensor(evidence, dtype=torch.float64)
        return self.posterior(inputs, outputs)

    def posterior(self, inputs: Tensor, outputs: Tensor) -> Kernels:
        """Returns the posterior at the present hyperparameters, given data `[N, D]` and `[N, E]`."""
        inputs, outputs = inputs.double(), outputs.double()
        variance, noise = self.signal.square(), self.noise.square()
        scaled = inputs / self.lengthscale.unsqueeze(1)
        if len(inputs) <= self.max_points:
            covariance = squared_exponential(scaled, scaled, variance) + torch.diag_embed(
                noise[:, None].expand(-1, len(inputs))
            )
            factor = torch.linalg.cholesky(covariance)
            weights = torch.cholesky_solve(outputs.T.unsqueeze(-1), factor).squeeze(-1)
            points = inputs.expand(len(variance), -1, -1)
            return Kernels(points, weights, self.lengthscale, variance, torch.cholesky_inverse(factor), noise)
        chosen = torch.stack([inducing_points(each, self.max_points) for each in scaled])
        points = inputs[chosen]
        inner = scaled.gather(1, chosen.unsqueeze(-1).expand(-1, -1, inputs.shape[1]))
        k_uu = squared_exponential(inner, inner, variance)
        k_uu = k_uu + _JITTER * variance[:, None, None] * torch.eye(self.max_points, dtype=torch.float64)
        k_uf = squared_exponential(inner, scaled, variance)
        # With L L^T = k_uu and V = L^-1 k_uf: k_uu + k_uf k_fu / noise = L (I + V V^T / noise) L^T.
        factor = torch.linalg.cholesky(k_uu)
        eye = torch.eye(self.max_points, dtype=torch.float64).expand_as(k_uu)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        v = inverse @ k_uf
        whole = torch.cholesky_inverse(torch.linalg.cholesky(eye + v @ v.mT / noise[:, None, None]))
        weights = inverse.mT @ (whole @ (v @ outputs.T.unsqueeze(-1))) / noise[:, None, None]
        precision = inverse.mT @ (eye - whole) @ inverse
        return Kernels(points, weights.squeeze(-1), self.lengthscale, variance, precision, noise)

    # ------------------------------------------------------------------ the evidence
    def _starts(self, e: int, x_unit: Tensor, y_unit: Tensor) -> list[Start]:
        size, one = len(x_unit), torch.zeros((), dtype=torch.float64)
        starts = [Start(torch.zeros(size, dtype=torch.float64), one, one + math.log(0.1))]
        if self.fits > 0:
            last = (self.lengthscale[e] / x_unit).log(), (self.signal[e] / y_unit).log(), (self.noise[e] / y_unit).log()
            starts.insert(0, Start(*last))
        while len(starts) < self.restarts:
            draw = torch.randn(size + 2, dtype=torch.float64)
            starts.append(Start(draw[:size], one + 0.5 * draw[size], math.log(0.1) + draw[size + 1]))
        return starts[: self.restarts]

    def _maximize(self, x: Tensor, y: Tensor, start: Start) -> tuple[Start, float]:
        """Maximises the evidence with its penalty for one output `[N]`; returns where, and the evidence there."""
        gpytorch = require_gpytorch("model.class_path", "PILCO")
        model = _exact_gp(gpytorch, x, y, self._inducing(x, start))
        likelihood, base = model.likelihood, model.base
        evidence = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
        size = x.shape[1]
        best: dict[str, Any] = {}

        def negative(flat: np.ndarray) -> tuple[float, np.ndarray]:
            log = torch.tensor(flat, dtype=torch.float64, requires_grad=True)
            lengthscale, signal, noise = log[:size], log[size], log[size + 1]
            parameters = {
                base.base_kernel.raw_lengthscale: lengthscale.exp().unsqueeze(0),
                base.raw_outputscale: (2 * signal).exp(),
                likelihood.noise_covar.raw_noise: (2 * noise).exp().unsqueeze(0),
            }
            with torch.no_grad():
                for raw, value in parameters.items():
                    raw.copy_(value)  # the constraints are identities
                    raw.grad = None
            model.zero_grad()
            ratio = (signal - noise) / math.log(self.max_signal_to_noise)
            penalty = ratio**_POWER + ((lengthscale / math.log(_MAX_LENGTHSCALE)) ** _POWER).sum()
            try:
                total = evidence(model(x), y) * len(y)
                (-total).backward()
            except (RuntimeError, ValueError):  # not positive definite: a step that was too long
                return math.inf, np.zeros_like(flat)
            chain = sum((raw.grad * value).sum() for raw, value in parameters.items())
            (gradient,) = torch.autograd.grad(penalty + chain, log)
            objective = float(penalty.detach() - total.detach())
            if objective < best.get("objective", math.inf):
                best.update(objective=objective, at=flat.copy(), evidence=float(total.detach()))
            return objective, gradient.numpy()

        at = torch.cat([start.lengthscale, start.signal.reshape(1), start.noise.reshape(1)]).numpy()
        exact = gpytorch.settings.fast_computations(False, False, False), gpytorch.settings.max_cholesky_size(10**6)
        with exact[0], exact[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a jitter on the way
            minimize(negative, at, jac=True, method="L-BFGS-B", options={"maxiter": self.max_iterations})
        if not best:
            return start, -math.inf
        found = torch.from_numpy(best["at"])
        return Start(found[:size], found[size], found[size + 1]), best["evidence"]

    def _inducing(self, x: Tensor, start: Start) -> Tensor | None:
        if len(x) <= self.max_points:
            return None
        return x[inducing_points(x / start.lengthscale.exp(), self.max_points)]


def inducing_points(x: Tensor, count: int) -> Tensor:
    """Returns the indices `[count]` of inputs `[N, D]`, in units of the length-scales, that leave the least variance.

    Each is the one that a process without noise, which knows the ones before, knows least about.
    """
    left = torch.ones(len(x), dtype=x.dtype)
    factor = torch.zeros(len(x), count, dtype=x.dtype)
    chosen = []
    for i in range(count):
        at = int(left.argmax())
        chosen.append(at)
        k = (-0.5 * (x - x[at]).square().sum(-1)).exp()
        factor[:, i] = (k - factor[:, :i] @ factor[at, :i]) / left[at].clamp(min=1e-12).sqrt()
        left = left - factor[:, i].square()
        left[at] = -1.0
    return torch.tensor(chosen)


def _spread(x: Tensor) -> Tensor:
    std = x.std(0)
    return torch.where(std > 0, std, 1.0)


def _exact_gp(gpytorch: Any, x: Tensor, y: Tensor, inducing: Tensor | None) -> Any:
    """GPyTorch's model of one output, with zero mean; its raw parameters are the values themselves."""
    identity = _identity(gpytorch)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=identity()).double()
    rbf = gpytorch.kernels.RBFKernel(ard_num_dims=x.shape[1], lengthscale_constraint=identity())
    base = gpytorch.kernels.ScaleKernel(rbf, outputscale_constraint=identity()).double()

    class Model(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.base = base
            self.covar_module = base
            if inducing is not None:
                self.covar_module = gpytorch.kernels.InducingPointKernel(base, inducing.clone(), likelihood)
                self.covar_module.inducing_points.requires_grad_(False)

        def forward(self, inputs: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(inputs), self.covar_module(inputs))

    model = Model().double()
    return model.train()


def _identity(gpytorch: Any) -> Any:
    return lambda: gpytorch.constraints.GreaterThan(0.0, transform=None)
