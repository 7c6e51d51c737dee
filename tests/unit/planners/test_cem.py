"""CEM: known optima, independence of the environments, and one refit by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mbrl.planners import CEM
from lit_mbrl.planners.cem import shift_plan
from lit_mbrl.utils.errors import OptionError


def _noise(cem: CEM, batch_size: int, action_dim: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return cem.noise(batch_size, action_dim)


def test_the_optimum_of_a_quadratic_is_found_in_each_environment() -> None:
    cem = CEM(horizon=4, num_candidates=500, num_elites=50, iterations=20)
    torch.manual_seed(1)
    optimum = 0.9 * (2 * torch.rand(3, 4, 2) - 1)
    plan = cem.plan(lambda u: -(u - optimum[:, None]).square().sum((-1, -2)), _noise(cem, 3, 2))
    assert (plan - optimum).abs().max() < 0.01


def test_an_optimum_outside_the_range_is_at_its_border() -> None:
    cem = CEM(horizon=3, num_candidates=300, num_elites=30, iterations=15)
    plan = cem.plan(lambda u: u.sum((-1, -2)), _noise(cem, 2, 1))
    assert (plan > 0.99).all() and (plan <= 1.0).all()


def test_a_batch_is_its_environments_one_by_one() -> None:
    cem = CEM(horizon=5, num_candidates=40, num_elites=7, iterations=4, momentum=0.1)
    noise = _noise(cem, 3, 2).double()
    goal = torch.randn(3, 5, 2, dtype=torch.float64)

    def objective(rows: Tensor) -> object:
        return lambda u: -(u.cumsum(2) - rows[:, None]).square().sum((-1, -2))

    together = cem.plan(objective(goal), noise)
    for i in range(3):
        alone = cem.plan(objective(goal[i : i + 1]), noise[:, i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1])


def test_the_plan_solves_a_linear_quadratic_problem() -> None:
    """`x' = A x + B u`, cost `x^T Q x + u^T R u`: the optimal open-loop plan is a least-squares solution."""
    horizon, a = 6, torch.tensor([[1.0, 0.2], [0.0, 0.9]], dtype=torch.float64)
    b, r = torch.tensor([[0.0], [0.3]], dtype=torch.float64), 0.1
    start = torch.tensor([[0.4, -0.3], [-0.2, 0.5]], dtype=torch.float64)

    def states(x: Tensor, u: Tensor) -> Tensor:
        """States `[..., H, 2]` after each action `[..., H, 1]`."""
        seen = []
        for t in range(horizon):
            x = x @ a.T + u[..., t, :] @ b.T
            seen.append(x)
        return torch.stack(seen, -2)

    def returns(u: Tensor) -> Tensor:
        x = states(start[:, None].expand(-1, u.shape[1], -1), u)
        return -(x.square().sum((-1, -2)) + r * u.square().sum((-1, -2)))

    # States are linear in the actions, `x = f + G u`: minimise |f + G u|^2 + r |u|^2.
    zero = torch.zeros(horizon, 1, dtype=torch.float64)
    columns = [states(torch.zeros(2, dtype=torch.float64), zero.index_fill(0, torch.tensor(t), 1.0)).reshape(-1)
               for t in range(horizon)]  # fmt: skip
    gain = torch.stack(columns, 1)
    cem = CEM(horizon=horizon, num_candidates=1000, num_elites=100, iterations=15)
    plan = cem.plan(returns, _noise(cem, 2, 1).double())
    for i in range(2):
        free = states(start[i], zero).reshape(-1)
        optimum = -torch.linalg.solve(gain.T @ gain + r * torch.eye(horizon, dtype=torch.float64), gain.T @ free)
        assert optimum.abs().max() < 0.95  # the range plays no part
        assert (plan[i, :, 0] - optimum).abs().max() < 0.02


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_refits_by_hand(momentum: float) -> None:
    cem = CEM(horizon=1, num_candidates=6, num_elites=2, iterations=2, init_std=0.5, momentum=momentum)
    noise = torch.tensor([[-3.0, -1.0, 0.0, 1.0, 1.4, 3.0], [0.0, 0.5, -0.5, 1.0, -1.0, 2.0]]).view(2, 1, 6, 1, 1)
    start = torch.full((1, 1, 1), 0.2)
    # First candidates: 0.2 + 0.5 z, clipped: -1, -0.3, 0.2, 0.7, 0.9, 1; nearest to 0.65 are 0.7 and 0.9.
    mean = (1 - momentum) * 0.8 + momentum * 0.2
    std = (1 - momentum) * (0.01 + 1e-6) ** 0.5 + momentum * 0.5
    second = sorted(
        (min(max(mean + std * z, -1.0), 1.0) for z in noise[1].view(-1).tolist()), key=lambda u: abs(u - 0.65)
    )
    expected = (1 - momentum) * (second[0] + second[1]) / 2 + momentum * mean
    plan = cem.plan(lambda u: -(u - 0.65).abs()[..., 0, 0] - 1e-6 * u[..., 0, 0], noise, start)
    assert plan.item() == pytest.approx(expected, abs=1e-5)


def test_candidates_that_break_the_model_lose() -> None:
    cem = CEM(horizon=2, num_candidates=200, num_elites=20, iterations=10)

    def objective(u: Tensor) -> Tensor:
        total = u.sum((-1, -2))
        return torch.where(total > 1.0, torch.full_like(total, torch.nan), -(total - 0.9).square())

    plan = cem.plan(objective, _noise(cem, 4, 1))
    assert torch.isfinite(plan).all() and (plan.sum((1, 2)) - 0.9).abs().max() < 0.05


def test_the_rest_of_a_plan() -> None:
    assert shift_plan(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist() == [2.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("option", "value"),
    [("horizon", 0), ("num_candidates", 1), ("num_elites", 1), ("iterations", 0), ("init_std", 0.0), ("momentum", 1.0)],
)
def test_mistakes(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"--model.planner.{option}={value}: expected"):
        CEM(**{option: value})


def test_more_elites_than_candidates() -> None:
    with pytest.raises(OptionError, match="--model.planner.num_elites=20: .* at most num_candidates=10"):
        CEM(num_candidates=10, num_elites=20)
