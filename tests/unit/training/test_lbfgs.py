"""L-BFGS on a module's parameters: the minimum, what is kept, and points without a value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_mbrl.training.lbfgs import flat_parameters, minimize_lbfgs, set_parameters


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 1).double()


def rosenbrock(at: nn.Module) -> Tensor:
    x = torch.cat([each.flatten() for each in at.parameters()])
    return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()


def test_it_finds_the_minimum() -> None:
    at, seen = module(), []
    found = minimize_lbfgs(at, lambda: rosenbrock(at), 200, seen.append)
    torch.testing.assert_close(found.parameters, torch.ones(3).double(), atol=1e-4, rtol=0)
    assert torch.equal(flat_parameters(at), found.parameters)
    assert found.value == pytest.approx(float(rosenbrock(at).detach())) and found.gradient_norm < 1e-2
    assert seen == sorted(seen, reverse=True) and seen[-1] == found.value and found.evaluations >= len(seen)


def test_the_best_point_is_kept_when_it_ends_early() -> None:
    at = module()
    before = float(rosenbrock(at).detach())
    found = minimize_lbfgs(at, lambda: rosenbrock(at), 2)
    assert found.value < before and found.evaluations <= 5


@pytest.mark.parametrize("fault", ["nan", "error"])
def test_points_without_a_value_are_left_again(fault: str) -> None:
    """The minimum of x - 0.01 log x is at 0.01; the first step from 0.9 goes below 0."""
    at = nn.Linear(1, 1, bias=False).double()
    set_parameters(at, torch.tensor([0.9]).double())
    faults = 0

    def function() -> Tensor:
        nonlocal faults
        x = at.weight.sum()
        if x <= 0:
            faults += 1
            if fault == "error":
                raise torch.linalg.LinAlgError("not positive definite")
        return x - 0.01 * x.log()

    found = minimize_lbfgs(at, function, 50)
    assert found.parameters.item() == pytest.approx(0.01, abs=1e-3) and faults > 0


def test_without_any_value_nothing_changes() -> None:
    at = module()
    before = flat_parameters(at)
    found = minimize_lbfgs(at, lambda: rosenbrock(at) * torch.nan, 5)
    assert torch.equal(flat_parameters(at), before) and found.value == float("inf")
