"""Our Adam is torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lit_mbrl.training.optim import Adam


def test_steps_are_torch_s_without_looking_for_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [torch.nn.Linear(4, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = Adam(networks[0].parameters(), lr=0.01, fused=True)
    theirs = torch.optim.Adam(networks[1].parameters(), lr=0.01, fused=True)
    x = torch.randn(8, 4)
    for _ in range(5):
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            network.zero_grad()
            network(x).square().mean().backward()
            if optimizer is ours:
                with monkeypatch.context() as patch:
                    patch.setattr(torch.accelerator, "current_accelerator", lambda **_: pytest.fail("asked"))
                    optimizer.step()
            else:
                optimizer.step()
    for p, q in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(p, q)


def test_torch_still_has_what_is_overridden() -> None:
    assert hasattr(torch.optim.Adam, "_accelerator_graph_capture_health_check")


def pairs_of_steps(found_inf: float | None = None, **options: Any) -> tuple[list[torch.Tensor], Adam, torch.optim.Adam]:
    """Weights after steps of `fused_step` and of torch's `step`, along the same gradients, saved and loaded between."""
    torch.manual_seed(0)
    networks = [torch.nn.Linear(4, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = Adam(networks[0].parameters(), lr=0.01, fused=True, **options)
    theirs = torch.optim.Adam(networks[1].parameters(), lr=0.01, fused=True, **options)
    x = torch.randn(8, 4)
    for k in range(6):
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            network.zero_grad()
            network(x).square().mean().backward()
            if found_inf is not None:
                optimizer.found_inf = torch.tensor(found_inf if k == 3 else 0.0)
            optimizer.param_groups[0]["lr"] = 0.01 / (k + 1)
        ours.fused_step()
        theirs.step()
        if k == 2:
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    return [p - q for p, q in zip(*(network.parameters() for network in networks), strict=True)], ours, theirs


@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}]
)
@pytest.mark.parametrize("found_inf", [None, 1.0])
def test_the_short_way_is_the_long_way(options: dict[str, Any], found_inf: float | None) -> None:
    differences, ours, theirs = pairs_of_steps(found_inf, **options)
    assert not any(difference.any() for difference in differences)
    for state, expected in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert ours.state_dict()["state"][0]["step"] == (6 if found_inf is None else 5)


def test_the_short_way_leaves_to_torch_what_it_does_not_know() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Adam(weights, lr=0.1, fused=True)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("hook"))
    weights[0].grad = torch.ones(2)  # the other one has none
    optimizer.fused_step()
    assert called == ["hook"] and weights[0][0] != 1 and weights[1][0] == 1
    weights[1].grad = torch.ones(2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.fused_step()
    schedule.step()  # warns of a scheduler that is ahead of its optimiser
    assert called == ["hook", "hook"]
    assert [state["step"] for state in optimizer.state.values()] == [2, 1]
