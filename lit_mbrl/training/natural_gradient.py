"""Natural gradient steps under a bound: conjugate gradient, Fisher-vector products and a backtracking line search.

Schulman et al. 2015, "Trust Region Policy Optimization" (arXiv 1502.05477v5), section 6 and appendix C. With the
gradient `g` of the loss, the Hessian `F` of the mean divergence from the old policy, which is its Fisher matrix, and
the bound `delta`:

    s = (F + eps)^-1 g              by conjugate gradient, from products F v alone
    beta = sqrt(2 delta / s.(F + eps) s)
    theta <- theta - shrink^j beta s    with the first j = 0, 1, ... that lowers the loss within the bound; or none
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbrl.training.optim import SearchOptimizer
from lit_mbrl.utils import distributed

Product = Callable[[Tensor], Tensor]


class NaturalGradient(SearchOptimizer):
    """A natural gradient step that keeps the divergence within a bound and never raises the loss.

    It has no memory: a checkpoint holds nothing of it, and its options are those of the running configuration.

    Args:
        parameters: trained parameters.
        lr: share of the longest step that the quadratic approximation of the divergence allows, tried first.
        eps: what is added to the Fisher matrix's diagonal.
        max_kl: bound `delta` of the divergence.
        cg_iterations: iterations of conjugate gradient.
        shrink: ratio of two tries of the line search.
        max_tries: tries after which the parameters stay as they are.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1.0,
        eps: float = 0.1,
        max_kl: float = 0.01,
        cg_iterations: int = 10,
        shrink: float = 0.8,
        max_tries: int = 10,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.eps, self.max_kl = eps, max_kl
        self.cg_iterations, self.shrink, self.max_tries = cg_iterations, shrink, max_tries
        self._expected = torch.tensor(0.0)  # first-order improvement of the full step

    def set_direction(self, divergence: Callable[[], Tensor] | None) -> None:
        """See `SearchOptimizer.set_direction`; the full step `beta s` takes the gradient's place, 0 if that is 0.

        On several devices the Fisher matrix is the mean over the ranks, as the gradient is.
        """
        if divergence is None:
            raise ValueError("a natural gradient needs the update's `divergence`")
        parameters = self.parameters()
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        product = damped(fisher_product(divergence(), parameters), self.eps)
        direction = conjugate_gradient(product, gradient, self.cg_iterations)
        curvature = direction.dot(product(direction))
        # Rounding may leave no curvature where there is no gradient; NaN goes on, to be noticed.
        length = torch.where(curvature <= 0, 0.0, (2.0 * self.max_kl / curvature).sqrt())
        step = torch.nan_to_num(length, nan=torch.nan, posinf=0.0) * direction
        self._expected = gradient.dot(step)
        for parameter, part in zip(parameters, unflatten(step, parameters), strict=True):
            parameter.grad = part

    @torch.no_grad()
    def search(self, loss: Tensor, evaluate: Callable[[], tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """See `SearchOptimizer.search`.

        Returns:
            | metric | |
            |---|---|
            | `kl` | divergence after the step |
            | `improvement` | of the loss by the step |
            | `expected_improvement` | of the loss by the first try, to first order |
            | `line_search_steps` | tries |
            | `accepted` | 1 if one of them was taken, else 0 |
        """
        parameters = self.parameters()
        before = [parameter.clone() for parameter in parameters]
        scale = self.param_groups[0]["lr"]
        found = {"kl": 0.0, "improvement": 0.0, "expected_improvement": scale * float(self._expected)}
        for tries in range(1, self.max_tries + 1):
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old - scale * parameter.grad)
            new_loss, kl = evaluate()
            assert kl is not None  # `set_direction` has seen the divergence
            if bool((new_loss < loss) & (kl <= self.max_kl)):
                found |= {"kl": float(kl), "improvement": float(loss - new_loss)}
                return found | {"line_search_steps": float(tries), "accepted": 1.0}
            scale *= self.shrink
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)
        return found | {"line_search_steps": float(self.max_tries), "accepted": 0.0}


def fisher_product(divergence: Tensor, parameters: Sequence[nn.Parameter]) -> Product:
    """Returns the product of the Hessian of a divergence with a vector `[n]`, the mean over the ranks.

    At the policy from which it is measured the Hessian of the mean Kullback-Leibler divergence is the Fisher matrix
    (appendix C). Two passes through the graph of the divergence per product, and no matrix.
    """
    gradient = flatten(torch.autograd.grad(divergence, parameters, create_graph=True, materialize_grads=True))

    def product(vector: Tensor) -> Tensor:
        slope = gradient.dot(vector.detach())
        image = flatten(torch.autograd.grad(slope, parameters, retain_graph=True, materialize_grads=True)).detach()
        distributed.average_([image])
        return image

    return product


def damped(product: Product, eps: float) -> Product:
    """Returns the product with the matrix plus `eps` on its diagonal."""
    return lambda vector: product(vector) + eps * vector


def conjugate_gradient(product: Product, target: Tensor, iterations: int, tolerance: float = 1e-10) -> Tensor:
    """Solves `A x = b` for a symmetric positive definite `A` (Hestenes and Stiefel 1952).

    Args:
        product: `v` to `A v`, `[n]` each.
        target: `b`, `[n]`.
        iterations: steps at most; `n` of them are enough but for rounding.
        tolerance: stop where the squared residual is at most so much of that of `x = 0`.
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), residual.dot(residual)
    least = tolerance * square
    for _ in range(iterations):
        if square <= least:
            break
        image = product(direction)
        length = square / direction.dot(image)
        solution += length * direction
        residual -= length * image
        before, square = square, residual.dot(residual)
        direction = residual + square / before * direction
    return solution


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Joins tensors to one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Any]:
    """Cuts a vector into tensors of these shapes."""
    parts = vector.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
