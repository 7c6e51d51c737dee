"""All planners: known optima, with active bounds too, environments that do not see each other, what breaks loses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mbrl.planners import CEM, ICEM, MPPI, Planner, TruncatedCEM

PLANNERS = {
    "cem": CEM(horizon=4, num_candidates=400, num_elites=40, iterations=20),
    "truncated": TruncatedCEM(horizon=4, num_candidates=1000, num_elites=100, iterations=40, min_variance=1e-6),
    "mppi": MPPI(horizon=4, num_candidates=1000, iterations=60, std=0.15, temperature=0.01, smoothing=1.0),
    "icem": ICEM(horizon=4, num_candidates=400, num_elites=40, iterations=20, noise_beta=0.0),
}
each_planner = pytest.mark.parametrize("name", PLANNERS)


def search(planner: Planner, objective: object, batch_size: int, action_dim: int, seed: int = 0) -> object:
    torch.manual_seed(seed)
    draws = planner.draws(batch_size, action_dim)
    return planner.search(objective, draws, planner.start(batch_size, action_dim))


def quadratic(optimum: Tensor) -> object:
    return lambda u: -(u - optimum[:, None]).square().sum((-1, -2))


@each_planner
def test_the_optimum_inside_is_found_in_each_environment(name: str) -> None:
    torch.manual_seed(1)
    optimum = 0.9 * (2 * torch.rand(3, 4, 2) - 1)
    found = search(PLANNERS[name], quadratic(optimum), 3, 2)
    assert (found.plan - optimum).abs().max() < 0.05
    assert (found.elite_return > -0.05).all() and (found.elite_variance < 0.02).all()


@each_planner
def test_an_optimum_beyond_the_bounds_is_at_the_nearest_point_inside(name: str) -> None:
    """Separable and convex, so the constrained optimum is the unconstrained one, clipped."""
    torch.manual_seed(1)
    optimum = torch.randn(3, 4, 2).mul(1.2).clamp(-2.0, 2.0)
    assert (optimum.abs() > 1).any() and (optimum.abs() < 1).any()
    found = search(PLANNERS[name], quadratic(optimum), 3, 2)
    assert found.plan.abs().max() <= 1.0 + 1e-6
    assert (found.plan - optimum.clamp(-1, 1)).abs().max() < 0.1


@each_planner
def test_a_batch_is_its_environments_one_by_one(name: str) -> None:
    planner = PLANNERS[name]
    torch.manual_seed(2)
    draws = [z.double() for z in planner.draws(3, 2)]
    optimum, memory = torch.randn(3, 4, 2).double(), torch.rand_like(planner.start(3, 2).double())
    together = planner.search(quadratic(optimum), draws, memory)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = planner.search(quadratic(optimum[rows]), [z[rows] for z in draws], memory[rows])
        for ours, theirs in zip(alone[:4], together[:4], strict=True):
            torch.testing.assert_close(ours, theirs[rows])


@each_planner
def test_candidates_that_break_the_model_lose(name: str) -> None:
    def objective(u: Tensor) -> Tensor:
        total = u.sum((-1, -2))
        return torch.where(total > 1.0, torch.full_like(total, torch.nan), -(total - 0.9).square())

    found = search(PLANNERS[name], objective, 4, 1)
    assert torch.isfinite(found.plan).all()
    assert (found.plan.sum((1, 2)) - 0.9).abs().max() < 0.1


@each_planner
def test_a_model_that_is_broken_everywhere_gives_a_finite_plan(name: str) -> None:
    found = search(PLANNERS[name], lambda u: torch.full(u.shape[:2], torch.nan), 2, 1)
    assert torch.isfinite(found.plan).all() and torch.isfinite(found.memory).all()


@each_planner
def test_the_memory_is_the_last_plan_without_its_first_action(name: str) -> None:
    planner = PLANNERS[name]
    found = search(planner, quadratic(torch.full((2, 4, 1), 0.5)), 2, 1)
    memory = planner.shift(found.memory)
    assert memory.shape == planner.start(2, 1).shape
    torch.testing.assert_close(memory[:, :, :-1], found.memory[:, :, 1:])
    assert (memory[:, :, -1] == 0).all()


@each_planner
def test_a_warm_start_is_ahead_of_a_cold_one(name: str) -> None:
    planner, optimum = PLANNERS[name], torch.full((2, 4, 2), 0.8)
    torch.manual_seed(0)
    first = [next(iter(planner.draws(2, 2)))]
    cold = planner.search(quadratic(optimum), first, planner.start(2, 2))
    warm = planner.search(quadratic(optimum), first, planner.start(2, 2) + 0.7)
    assert ((warm.memory[:, 0] - optimum).abs().mean() < (cold.memory[:, 0] - optimum).abs().mean()).all()
