"""Perturbed copies of a network in one pass are the networks one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lit_mbrl.networks.flat_mlp import FlatMLP


def explicit(sizes: list[int], weights: Tensor) -> nn.Sequential:
    """A network of torch's own layers with these weights, and tanh between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out).to(weights.dtype)
        matrix, bias, weights = weights.split([fan_in * fan_out, fan_out, len(weights) - (fan_in + 1) * fan_out])
        with torch.no_grad():
            layer.weight.copy_(matrix.view(fan_in, fan_out).T)
            layer.bias.copy_(bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [[], [5], [6, 4]])
def test_noise_on_the_weights_gives_the_networks_one_by_one(hidden: list[int]) -> None:
    torch.manual_seed(0)
    network = FlatMLP(3, hidden, 2).double()
    x, noise = torch.randn(7, 4, 3).double(), torch.randn(7, network.weights.numel()).double()
    found = network(x, noise)
    for i in range(7):
        torch.testing.assert_close(found[i], explicit([3, *hidden, 2], network.weights.detach() + noise[i])(x[i]))
    torch.testing.assert_close(network(x), explicit([3, *hidden, 2], network.weights.detach())(x))
    torch.testing.assert_close(network(x), network(x, torch.zeros_like(noise)))


def test_the_first_weights() -> None:
    torch.manual_seed(0)
    network = FlatMLP(30, [20], 4)
    matrix, bias, last, end = network.weights.detach().split([600, 20, 80, 4])
    torch.testing.assert_close(matrix.view(30, 20).norm(dim=0), torch.ones(20))
    torch.testing.assert_close(last.view(20, 4).norm(dim=0), torch.full((4,), 0.01))
    assert not bias.any() and not end.any()
    assert network(torch.randn(100, 30)).abs().max() < 0.05  # so that planning starts around no action at all
