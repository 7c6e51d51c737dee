"""CMA-ES as an update's step: a known optimum, and exact continuation from what a checkpoint holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mbrl.training.evolution import CMAES

OPTIMUM = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5])


def quadratic(candidates: Tensor) -> Tensor:
    return ((candidates - OPTIMUM) * torch.tensor([1.0, 3.0, 0.5, 10.0, 1.0])).square().sum(-1)


def start() -> tuple[nn.Linear, CMAES]:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module, CMAES(module.parameters(), lr=0.5, population=12)


def run(optimizer: CMAES, generations: int) -> dict[str, float]:
    for _ in range(generations):
        found = optimizer.tell(quadratic(optimizer.ask()))
    return found


def test_the_optimum_of_a_quadratic_is_found() -> None:
    module, optimizer = start()
    found = run(optimizer, 150)
    mean = torch.cat([module.weight.reshape(-1), module.bias])
    torch.testing.assert_close(mean, OPTIMUM, atol=1e-4, rtol=0)
    assert found["generation"] == 150 and found["best"] <= found["mean"] <= found["worst"]


def test_a_resumed_search_goes_on_exactly() -> None:
    whole, optimizer = start()
    run(optimizer, 20)
    cut, first = start()
    run(first, 9)
    rest, second = start()
    rest.load_state_dict(cut.state_dict())
    second.load_state_dict(first.state_dict())
    torch.manual_seed(5)  # the search has random numbers of its own
    run(second, 11)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True))


def test_a_generation_that_is_not_finite_moves_nothing_and_is_resumed_over() -> None:
    module, optimizer = start()
    run(optimizer, 3)
    before = module.weight.clone()
    optimizer.ask()
    optimizer.tell(torch.full((12,), torch.nan))
    assert torch.equal(module.weight, before)
    other, second = start()
    other.load_state_dict(module.state_dict())
    second.load_state_dict(optimizer.state_dict())
    assert torch.equal(optimizer.ask(), second.ask())
