"""L-BFGS on a module's parameters, by SciPy: for functions that are exact, in float64, and cost much to evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

_REFUSED = 1e6  # of a point without a finite value: L-BFGS comes back from it
_MEMORY = 50  # pairs of steps and changes of the gradient: an evaluation costs much more than they do


class Minimum(NamedTuple):
    """Where a search has found the least value.

    | field | shape | |
    |---|---|---|
    | `parameters` | `[P]` | as one vector |
    | `value` | | |
    | `gradient_norm` | | there |
    | `evaluations` | | of value and gradient |
    """

    parameters: Tensor
    value: float
    gradient_norm: float
    evaluations: int


def minimize_lbfgs(
    module: nn.Module,
    function: Callable[[], Tensor],
    max_iterations: int,
    notify: Callable[[float], None] = lambda value: None,
) -> Minimum:
    """Minimises a function of a module's parameters from where they are, and leaves the best of all that were tried.

    Args:
        module: float64.
        function: computes a scalar; what is not finite, or raises `torch.linalg.LinAlgError`, is no candidate.
        max_iterations: of L-BFGS, each with a few evaluations.
        notify: is told every new least value.
    """
    parameters = list(module.parameters())
    best = Minimum(flat_parameters(module), math.inf, math.nan, 0)
    count = 0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, count
        count += 1
        at = torch.from_numpy(flat.copy())
        set_parameters(module, at)
        value, gradient = value_and_gradient(function, parameters)
        if not (math.isfinite(value) and gradient.isfinite().all()):
            return _REFUSED, np.zeros_like(flat)
        if value < best.value:
            best = Minimum(at, value, float(gradient.norm()), count)
            notify(value)
        return value, gradient.numpy()

    limits = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "maxcor": _MEMORY}
    minimize(objective, best.parameters.numpy(), jac=True, method="L-BFGS-B", options=limits)
    set_parameters(module, best.parameters)
    return best._replace(evaluations=count)


def value_and_gradient(function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> tuple[float, Tensor]:
    """Computes a scalar and its derivative by parameters `[P]`; infinite where a matrix is not positive definite."""
    try:
        value = function()
        gradient = torch.autograd.grad(value, parameters)
    except torch.linalg.LinAlgError:
        return math.inf, torch.full((sum(each.numel() for each in parameters),), math.nan, dtype=torch.float64)
    return float(value.detach()), torch.cat([each.flatten() for each in gradient])


def flat_parameters(module: nn.Module) -> Tensor:
    """Returns a module's parameters as one vector `[P]`, a copy."""
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def set_parameters(module: nn.Module, flat: Tensor) -> None:
    """Sets a module's parameters to those of a vector `[P]`."""
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(flat.clone(), module.parameters())
