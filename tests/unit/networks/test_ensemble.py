from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks import EnsembleMLP
from lit_mbrl.networks.ensemble import ACTIVATIONS

E, B, IN, OUT = 3, 7, 4, 2


def alone(ensemble: EnsembleMLP, member: int, x: Tensor) -> Tensor:
    """One member, written out as separate linear layers."""
    *hidden, last = zip(ensemble.weights, ensemble.biases, strict=True)
    for w, b in hidden:
        x = ACTIVATIONS[ensemble.activation](F.linear(x, w[member].T, b[member, 0]))
    w, b = last
    return F.linear(x, w[member].T, b[member, 0])


def random_biases(ensemble: EnsembleMLP) -> EnsembleMLP:
    for bias in ensemble.biases:
        nn.init.normal_(bias)
    return ensemble


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [5], [6, 5]])
def test_one_product_for_all_is_every_member_alone(hidden: list[int], activation: str) -> None:
    ensemble = random_biases(EnsembleMLP(E, IN, hidden, OUT, activation))
    own, shared = torch.randn(E, B, IN), torch.randn(B, IN)
    torch.testing.assert_close(ensemble(own), torch.stack([alone(ensemble, i, own[i]) for i in range(E)]))
    torch.testing.assert_close(ensemble(shared), torch.stack([alone(ensemble, i, shared) for i in range(E)]))
    chosen = ensemble(shared, torch.tensor([2, 0]))
    torch.testing.assert_close(chosen, torch.stack([alone(ensemble, i, shared) for i in (2, 0)]))


def test_grouped_rows_go_through_their_member() -> None:
    ensemble = random_biases(EnsembleMLP(E, IN, [6], OUT))
    x, counts = torch.randn(5000, IN), [2200, 0, 2800]  # more rows than go through at a time, and none
    expected = torch.cat([alone(ensemble, 2, x[:2200]), alone(ensemble, 1, x[2200:])])
    torch.testing.assert_close(ensemble.grouped(x, counts, [2, 0, 1]), expected)


def test_a_member_s_loss_reaches_its_own_weights_only() -> None:
    ensemble = EnsembleMLP(E, IN, [5], OUT)
    ensemble(torch.randn(E, B, IN))[1].square().sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad[1].abs().sum() > 0
        assert not parameter.grad[[0, 2]].any()


def test_weights_start_from_a_cut_off_normal() -> None:
    ensemble = EnsembleMLP(20, 100, [100], 100)
    for weight in ensemble.weights:
        assert weight.abs().max() <= 0.1  # twice 1 / (2 sqrt(100))
        assert weight.std().item() == pytest.approx(0.05 * 0.8796, rel=0.02)  # of a normal cut at two deviations
    assert not any(bias.any() for bias in ensemble.biases)


def test_weight_decay_is_half_the_square_per_layer() -> None:
    ensemble = EnsembleMLP(E, IN, [5], OUT)
    expected = [
        0.5 * sum(d * w[i].square().sum() for d, w in zip((0.1, 0.3), ensemble.weights, strict=True)) for i in range(E)
    ]
    torch.testing.assert_close(ensemble.l2([0.1, 0.3]), torch.stack(expected))


def test_the_last_layer_stays_in_float32() -> None:
    ensemble = EnsembleMLP(E, IN, [64], OUT)
    x = torch.randn(B, IN)
    exact = ensemble(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, grouped = ensemble(x), ensemble.grouped(x, [B], [1])
    assert rounded.dtype == grouped.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)
    torch.testing.assert_close(grouped, exact[1], atol=0.02, rtol=0.02)
