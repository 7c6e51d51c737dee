"""Derivatives of functions whose rows do not depend on each other, by automatic differentiation.

A row is repeated once for each derivative that is asked for, so any differentiable model works, fused kernels included.
`R` rows, `D` inputs, `S` outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def jacobian(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Computes values `[R, S]` and Jacobians `[R, S, D]` of a function at inputs `[R, D]`, all constants."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs = inputs.detach().clone()
        with torch.no_grad():
            values = function(inputs)
        size = values.shape[-1]
        repeated = inputs.repeat(size, 1).requires_grad_()
        outputs = function(repeated).view(size, len(inputs), size)
        own = outputs.diagonal(dim1=0, dim2=2).sum()  # output i of repetition i
        return values, _gradient(own, repeated).view(size, *inputs.shape).transpose(0, 1)


def gradient_and_hessian(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Computes gradients `[R, D]` and Hessians `[R, D, D]` of a function with values `[R]` at inputs `[R, D]`."""
    with torch.inference_mode(False), torch.enable_grad():
        size = inputs.shape[-1]
        repeated = inputs.detach().clone().repeat(size, 1).requires_grad_()
        gradient = _gradient(function(repeated).sum(), repeated, create_graph=True).view(size, -1, size)
        own = gradient.diagonal(dim1=0, dim2=2).sum()
        # A function that is linear in its inputs has a gradient that is no function of them.
        hessian = _gradient(own, repeated) if own.requires_grad else torch.zeros_like(repeated)
        hessian = hessian.view(size, -1, size).transpose(0, 1)
        return gradient[0].detach(), 0.5 * (hessian + hessian.transpose(1, 2))


def convex(hessian: Tensor) -> Tensor:
    """Returns the nearest positive semidefinite matrices `[..., D, D]`: without the negative eigenvalues."""
    values, vectors = torch.linalg.eigh(hessian)
    return (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.transpose(-1, -2)


def is_differentiable(function: Callable[[Tensor], Tensor], inputs: Tensor) -> bool:
    """Returns whether a function's values at inputs `[R, D]` have a gradient."""
    with torch.inference_mode(False), torch.enable_grad():
        return function(inputs.detach().clone().requires_grad_()).requires_grad


def _gradient(value: Tensor, inputs: Tensor, create_graph: bool = False) -> Tensor:
    (found,) = torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(inputs) if found is None else found
