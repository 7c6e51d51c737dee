from __future__ import annotations

import pytest
import torch

from lit_mbrl.networks import NormalizedAdvantage


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_factor_is_lower_triangular_with_the_network_s_outputs(size: int) -> None:
    network = NormalizedAdvantage(3, size, [8])
    observation = torch.randn(2, 5, 3)
    value, mean, factor = network(observation)
    assert value.shape == (2, 5, 1) and mean.shape == (2, 5, size) and factor.shape == (2, 5, size, size)
    assert torch.equal(factor, factor.tril()) and (mean.abs() <= 1).all()
    entries = network.factor.net(observation)
    assert torch.equal(factor.diagonal(dim1=-2, dim2=-1), entries[..., :size].exp())
    row, column = torch.tril_indices(size, size, -1)
    assert torch.equal(factor[..., row, column], entries[..., size:])
    assert len(torch.unique(factor[0, 0])) == entries.shape[-1] + (size > 1)  # each has one place, the others are zero


def test_the_precision_is_positive_definite() -> None:
    _, _, factor = NormalizedAdvantage(3, 3, [16]).double()(10 * torch.randn(50, 3, dtype=torch.float64))
    assert (torch.linalg.eigvalsh(factor @ factor.mT) > 0).all()
