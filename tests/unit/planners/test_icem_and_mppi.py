"""iCEM's noise, memory and choice; MPPI's average by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_mbrl.planners import ICEM, MPPI
from lit_mbrl.planners.icem import coloured_noise
from lit_mbrl.utils.errors import OptionError


@pytest.mark.parametrize("steps", [1, 2, 7, 12])
@pytest.mark.parametrize("beta", [0.0, 2.0, 4.0])
def test_noise_has_variance_1_at_every_step(beta: float, steps: int) -> None:
    torch.manual_seed(0)
    noise = coloured_noise((50_000,), steps, beta)
    assert (noise.var(0) - 1).abs().max() < 0.03 and noise.mean(0).abs().max() < 0.03


def test_white_noise_is_uncorrelated_and_coloured_noise_has_its_spectrum() -> None:
    torch.manual_seed(0)
    white, brown = (coloured_noise((50_000,), 12, beta) for beta in (0.0, 2.0))
    assert (torch.corrcoef(white.T) - torch.eye(12)).abs().max() < 0.03
    power = torch.fft.rfft(brown).abs().square().mean(0)
    # The power of frequencies 1 and 4 of 12 differs by 4^2; that of white noise does not.
    assert (power[1] / power[4]).item() == pytest.approx(16.0, rel=0.05)
    power = torch.fft.rfft(white).abs().square().mean(0)
    assert (power[1] / power[4]).item() == pytest.approx(1.0, rel=0.05)


def test_the_population_shrinks_down_to_twice_the_elites() -> None:
    icem = ICEM(horizon=3, num_candidates=100, num_elites=20, iterations=5, decay=2.0)
    assert [z.shape[1] for z in icem.draws(2, 1)] == [100, 50, 40, 40, 40]


def test_kept_elites_compete_again_and_the_best_candidate_is_the_plan() -> None:
    """The memory holds the optimum, which noise hits nowhere: it is the plan of this step."""
    icem = ICEM(horizon=3, num_candidates=20, num_elites=4, iterations=2, kept_elites=0.5)
    optimum = torch.tensor([0.123, -0.4, 0.77]).view(1, 3, 1)
    memory = icem.start(1, 1)
    assert memory.shape == (1, 3, 3, 1)
    memory[:, 2] = optimum
    torch.manual_seed(0)
    found = icem.search(lambda u: -(u - optimum[:, None]).square().sum((-1, -2)), icem.draws(1, 1), memory)
    torch.testing.assert_close(found.plan, optimum)
    torch.testing.assert_close(found.memory[:, 1], optimum)  # the best of the kept ones


def test_mppi_s_average_by_hand() -> None:
    mppi = MPPI(horizon=1, num_candidates=2, std=0.5, temperature=0.5)
    z = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    found = mppi.search(lambda u: u[..., 0, 0], [z], mppi.start(1, 1))
    # Candidates 0.5 and -0.5 with returns 0.5 and -0.5: weights exp(1) : exp(-1).
    weight = 1 / (1 + math.exp(-2))
    assert found.plan.item() == pytest.approx(0.5 * weight - 0.5 * (1 - weight))
    assert found.elite_return.item() == pytest.approx(found.plan.item())


def test_mppi_s_noise_is_filtered() -> None:
    mppi = MPPI(horizon=4, num_candidates=100_000, smoothing=0.7)
    torch.manual_seed(0)
    (noise,) = mppi.draws(1, 1)
    first, second = noise[0, :, 0, 0], noise[0, :, 1, 0]
    assert first.std().item() == pytest.approx(0.7, rel=0.02)
    # n_1 = 0.7 z_1 + 0.3 n_0: covariance 0.3 var(n_0).
    covariance: Tensor = ((first - first.mean()) * (second - second.mean())).mean()
    assert covariance.item() == pytest.approx(0.3 * 0.49, rel=0.05)


@pytest.mark.parametrize(
    ("planner", "option", "value"),
    [
        (ICEM, "num_elites", 201),
        (ICEM, "noise_beta", -1.0),
        (ICEM, "decay", 0.5),
        (ICEM, "kept_elites", 1.5),
        (MPPI, "temperature", 0.0),
        (MPPI, "std", 0.0),
        (MPPI, "smoothing", 0.0),
        (MPPI, "iterations", 0),
    ],
)
def test_mistakes(planner: type, option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"--model.planner.{option}={value}: expected"):
        planner(**{option: value})
