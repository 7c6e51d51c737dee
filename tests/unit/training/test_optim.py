"""Our Adam is torch's."""

from __future__ import annotations

import torch

from lit_mbrl.training.optim import Adam


def test_it_is_torch_s_fused_one() -> None:
    networks = [torch.nn.Linear(4, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = Adam(networks[0].parameters(), lr=0.01)
    theirs = torch.optim.Adam(networks[1].parameters(), lr=0.01, fused=True)
    x = torch.randn(8, 4)
    for _ in range(5):
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            network.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    for p, q in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(p, q)


def test_its_tensors_are_its_state() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Adam([weight], lr=0.01)
    tensors = optimizer.tensors()
    weight.grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state[weight]
    assert tensors.steps.tolist() == [1.0] and tensors.exp_avgs[0] is state["exp_avg"]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.tensors().exp_avgs[0] is optimizer.state[weight]["exp_avg"]
