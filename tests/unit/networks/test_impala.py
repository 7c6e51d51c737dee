"""IMPALA's convolutional network: sizes, initialisation, and memory formats and precisions that agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_mbrl.networks.impala import Impala, ImpalaEncoder, ResidualBlock
from lit_mbrl.utils.errors import OptionError

PROCGEN = (3, 64, 64)


def pictures(count: int = 4, shape: tuple[int, ...] = PROCGEN) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_sizes_are_the_papers() -> None:
    network = Impala(PROCGEN)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 15  # figure 3: 15 convolutional layers
    assert [layer.out_channels for layer in convolutions] == [16] * 5 + [32] * 10
    assert network.last.in_features == 32 * 8 * 8 and network.last.out_features == 256
    weights = 9 * (3 * 16 + 4 * 16 * 16 + 16 * 32 + 9 * 32 * 32) + 2048 * 256
    biases = 5 * 16 + 10 * 32 + 256
    heads = 16 * (256 + 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights + biases == 626_256 - heads


@pytest.mark.parametrize("shape", [PROCGEN, (1, 15, 33), (4, 84, 84)])
def test_shapes(shape: tuple[int, ...]) -> None:
    network = Impala(shape, features=10, channels=[4, 8])
    flat = network(pictures(6, shape))
    assert flat.shape == (6, 10) and flat.dtype == torch.float32 and (flat >= 0).all()
    assert network(pictures(6, shape).view(2, 3, *shape)).shape == (2, 3, 10)
    assert torch.allclose(network(pictures(6, shape).view(2, 3, *shape)).view(6, 10), flat, atol=1e-5)


def test_bytes_are_divided_and_left_alone() -> None:
    network, seen = Impala(PROCGEN), []
    network.stages[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    given = pictures(2)
    kept = given.clone()
    network(given)
    assert (given == kept).all()
    assert torch.allclose(seen[0], kept / 255.0, atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_a_residual_block_is_its_equation() -> None:
    """The block works in place where it may; against the same with nothing in place, values and gradients."""
    torch.manual_seed(0)
    block = ResidualBlock(3).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    expected = x + block.second(torch.relu(block.first(torch.relu(x))))
    weight = torch.randn_like(expected)
    inputs = [x, *block.parameters()]
    wanted = torch.autograd.grad((weight * expected).sum(), inputs)
    kept = x.detach().clone()
    got = block(x)
    assert torch.equal(x.detach(), kept)
    assert torch.allclose(got, expected)
    for ours, theirs in zip(torch.autograd.grad((weight * got).sum(), inputs), wanted, strict=True):
        assert torch.allclose(ours, theirs)


def test_initialisation_is_orthogonal() -> None:
    torch.manual_seed(0)
    network = Impala(PROCGEN)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().flatten(1)
            gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
            assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-4)
            assert not layer.bias.any()


def test_a_value_s_first_guesses_are_near_zero() -> None:
    """Clipping lets a value move by 0.2 per rollout, in units in which rewards' sums have a variance of 1."""
    for seed in range(3):
        torch.manual_seed(seed)
        features = Impala(PROCGEN)(pictures(8))
        assert 0.1 < features.square().mean().sqrt() < 1.0


def test_memory_formats_agree() -> None:
    torch.manual_seed(0)
    last = Impala(PROCGEN)
    first = Impala(PROCGEN, channels_last=False)
    first.load_state_dict(last.state_dict())
    assert torch.allclose(last(pictures()), first(pictures()), atol=1e-4)


def test_half_precision_is_close_and_its_gradients_are_float32() -> None:
    torch.manual_seed(0)
    network = Impala(PROCGEN)
    whole = network(pictures())
    with torch.autocast("cpu", torch.bfloat16):
        half = network(pictures())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), whole, atol=0.05 * float(whole.detach().abs().max()))
    half.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"features": 0}, "--model.encoder.features=0: expected an integer > 0"),
        ({"channels": []}, "--model.encoder.channels=\\[\\]: expected integers > 0"),
        ({"channels": [16, 0]}, "--model.encoder.channels=.*: expected integers > 0"),
    ],
)
def test_wrong_sizes(arguments: dict, line: str) -> None:
    with pytest.raises(OptionError, match=line):
        ImpalaEncoder(**arguments)


def test_options_reach_the_network() -> None:
    network = ImpalaEncoder(features=5, channels=[2, 3], channels_last=False).build(PROCGEN)
    assert network.features == 5 and network.format == torch.contiguous_format
    assert [section[0].out_channels for section in network.stages] == [2, 3]
