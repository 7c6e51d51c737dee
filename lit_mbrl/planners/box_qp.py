"""Convex quadratic problems with bounds, many at once, by projected Newton steps.

Tassa, Mansard and Todorov 2014, "Control-Limited Differential Dynamic Programming", section III B: an entry is held at
its bound where the gradient points outwards, and a Newton step is taken in the others, with a line search along the
projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS, _SIZES = 50, 12
_SMALL = 1e-10


def solve_box_qp(hessian: Tensor, gradient: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Minimises `1/2 x^T H x + g^T x` with `low <= x <= high`.

    Args:
        hessian: H, positive definite, `[R, A, A]`.
        gradient: g, `[R, A]`.
        low: `[R, A]`.
        high: `[R, A]`.

    Returns:
        x `[R, A]`, and which of its entries are not held at a bound, bool `[R, A]`.
    """
    x = -torch.linalg.solve(hessian, gradient)
    if ((x >= low) & (x <= high)).all():
        return x, torch.ones_like(x, dtype=torch.bool)
    x = torch.minimum(torch.maximum(x, low), high)
    sizes = 0.5 ** torch.arange(_SIZES, dtype=x.dtype, device=x.device).view(-1, 1, 1)
    free = torch.ones_like(x, dtype=torch.bool)
    for _ in range(_STEPS):
        slope = gradient + (hessian @ x.unsqueeze(-1)).squeeze(-1)
        free = ~(((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0)))
        inside = free.to(x)
        slope = slope * inside
        going = slope.abs().amax(1) > _SMALL * (1.0 + gradient.abs().amax(1))
        if not going.any():
            break
        system = hessian * inside.unsqueeze(1) * inside.unsqueeze(2) + torch.diag_embed(1.0 - inside)
        newton = -torch.linalg.solve(system, slope)
        tried = torch.minimum(torch.maximum(x + sizes * newton, low), high)  # [sizes, R, A]
        cost = _cost(hessian, gradient, tried)
        best = cost.argmin(0)
        better = going & (cost.gather(0, best.unsqueeze(0)).squeeze(0) < _cost(hessian, gradient, x))
        if not better.any():
            break
        moved = tried.gather(0, best.view(1, -1, 1).expand(1, *x.shape)).squeeze(0)
        x = torch.where(better.unsqueeze(1), moved, x)
    return x, free


def _cost(hessian: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
    return 0.5 * (x * (hessian @ x.unsqueeze(-1)).squeeze(-1)).sum(-1) + (x * gradient).sum(-1)
