"""Our Adam is torch's."""

from __future__ import annotations

import pytest
import torch

from lit_mbrl.optim import Adam


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
