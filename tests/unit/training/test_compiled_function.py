"""A compiled function is the function; where it cannot be compiled, a line says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbrl.planners.propagation import TrajectorySampler, open_loop
from lit_mbrl.training.compiled_function import CompiledFunction
from tests.helpers.planning import contradicting


def test_what_cannot_be_compiled_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails(*inputs: Any) -> Any:
        calls.append(inputs)
        raise RuntimeError("no compiler\nand more lines")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)
    twice = CompiledFunction(lambda x: 2 * x, "doubling")
    with pytest.warns(UserWarning, match="model.compile: doubling runs eagerly, since RuntimeError: no compiler$"):
        assert twice(torch.ones(1)) == 2
    assert twice(torch.ones(1)) == 2 and len(calls) == 1


def test_errors_of_the_function_itself_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)

    def broken(x: Tensor) -> Tensor:
        raise ValueError("broken")

    with pytest.warns(UserWarning), pytest.raises(ValueError, match="broken"):
        CompiledFunction(broken, "breaking")(torch.ones(1))


@pytest.mark.slow
@pytest.mark.parametrize(("propagation", "particles"), [("TSinf", 4), ("E", 1)])
def test_compiled_planning_imagines_the_same(propagation: str, particles: int) -> None:
    """The same random numbers, too."""
    start, plans, found = torch.randn(2, 1), torch.rand(2, 6, 5, 1), []
    for compiled in (False, True):
        sampler = TrajectorySampler(contradicting(0.3), propagation, particles)
        if compiled:
            sampler.move = CompiledFunction(sampler.move, "planning")
        torch.manual_seed(0)
        found.append(sampler.returns(start, plans, open_loop, 5))
        assert not compiled or sampler.move._compiled is not None
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
