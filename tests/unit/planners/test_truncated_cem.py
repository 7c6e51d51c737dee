"""PETS' cross-entropy method: its distribution, its stop, and a refit by hand; PlaNet's is the loop it always was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_mbrl.planners import CEM, TruncatedCEM
from lit_mbrl.utils.errors import OptionError


def test_noise_is_normal_between_two_sigma() -> None:
    torch.manual_seed(0)
    z = TruncatedCEM().draw((200_000,), None).double()
    assert z.abs().max() <= 2.0 and z.abs().max() > 1.99
    # Of a standard normal distribution that is cut off at +-c: variance 1 - 2 c phi(c) / (2 Phi(c) - 1).
    variance = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
    assert z.var().item() == pytest.approx(variance, abs=0.01) and abs(z.mean()) < 0.01
    inside = math.erf(1 / math.sqrt(2)) / math.erf(math.sqrt(2))
    assert (z.abs() < 1).double().mean().item() == pytest.approx(inside, abs=0.005)


def test_the_variance_is_capped_by_the_distance_to_the_bounds() -> None:
    cem, z = TruncatedCEM(horizon=1), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 5, 1, 1)
    mean, variance = torch.full((1, 1, 1), 0.9), torch.full((1, 1, 1), 0.25)
    # min((1.9 / 2)^2, (0.1 / 2)^2, 0.25) = 0.0025: a standard deviation of 0.05, so that two of them reach the bound.
    torch.testing.assert_close(cem.candidates(mean, variance, z).flatten(), torch.tensor([0.8, 0.85, 0.9, 0.95, 1.0]))
    far = TruncatedCEM(horizon=1, bound=None).candidates(mean, variance, z).flatten()
    torch.testing.assert_close(far, torch.tensor([-0.1, 0.4, 0.9, 1.4, 1.9]))


def test_a_refit_by_hand() -> None:
    cem = TruncatedCEM(horizon=1, num_candidates=4, num_elites=2, iterations=1, momentum=0.1, min_variance=0.0)
    z = torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 4, 1, 1)
    found = cem.search(lambda u: u[..., 0, 0], [z], cem.start(1, 1))
    # Candidates -0.5, 0, 0.5, 1; elites 0.5 and 1: mean 0.75, variance 0.0625.
    assert found.plan.item() == pytest.approx(0.9 * 0.75)
    assert found.elite_variance.item() == pytest.approx(0.0625)
    assert found.elite_return.item() == pytest.approx(0.75)
    torch.testing.assert_close(cem.refit(torch.tensor(0.0625), torch.tensor(0.25)), torch.tensor(0.9 * 0.0625 + 0.025))


def test_the_search_of_an_environment_stops_when_its_variance_is_small() -> None:
    """One environment's returns are flat in all but a narrow peak, the other's are flat: it stops later."""
    cem = TruncatedCEM(horizon=1, num_candidates=200, num_elites=5, iterations=50, momentum=0.0, min_variance=1e-3)
    torch.manual_seed(0)
    calls = []

    def objective(u: Tensor) -> Tensor:
        calls.append(len(calls))
        sharp = -(u[:1, :, 0, 0] - 0.3).square()
        return torch.cat([sharp, torch.zeros_like(sharp)])

    found = cem.search(objective, cem.draws(2, 1), cem.start(2, 1))
    assert found.iterations == len(calls) < 50
    assert abs(found.plan[0].item() - 0.3) < 0.1
    never = TruncatedCEM(horizon=1, num_candidates=20, num_elites=5, iterations=7, min_variance=0.0)
    assert never.search(objective, never.draws(2, 1), never.start(2, 1)).iterations == 7


def test_planet_s_search_is_bit_equal_to_its_loop() -> None:
    cem = CEM(horizon=5, num_candidates=64, num_elites=9, iterations=4, momentum=0.1, init_std=0.8)
    torch.manual_seed(3)
    noise, goal = cem.noise(3, 2), torch.randn(3, 1, 5, 2)

    def objective(u: Tensor) -> Tensor:
        returns = -(u.cumsum(2) - goal).square().sum((-1, -2))
        return torch.where(u[..., 0, 0] > 0.9, torch.nan, returns)

    mean = torch.zeros(3, 5, 2)
    std = torch.full_like(mean, 0.8)
    for z in noise:
        candidates = (mean[:, None] + std[:, None] * z).clamp(-1.0, 1.0)
        returns = objective(candidates).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        best = returns.topk(9, dim=1).indices[:, :, None, None]
        variance, fitted = torch.var_mean(candidates.take_along_dim(best, dim=1), dim=1, correction=0)
        mean, std = torch.lerp(fitted, mean, 0.1), torch.lerp((variance + 1e-6).sqrt(), std, 0.1)
    assert torch.equal(cem.plan(objective, noise), mean)


@pytest.mark.parametrize(("option", "value"), [("min_variance", -1.0), ("bound", 0.0), ("num_elites", 1000)])
def test_mistakes(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"--model.planner.{option}={value}: expected"):
        TruncatedCEM(**{option: value})
