from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from lit_mbrl.losses import precision_noise, precision_scale, quadratic_advantage


def factors(count: int, size: int) -> torch.Tensor:
    """Lower triangular matrices `[count, size, size]` with a positive diagonal."""
    matrix = torch.randn(count, size, size, dtype=torch.float64).tril(-1)
    return matrix + torch.diag_embed(torch.rand(count, size, dtype=torch.float64) + 0.3)


def test_the_advantage_is_the_quadratic_form_of_the_precision() -> None:
    factor, action, mean = factors(4, 3), *torch.randn(2, 4, 3, dtype=torch.float64)
    by_hand = [
        -0.5 * sum((u - m)[i] * (lower @ lower.T)[i, j] * (u - m)[j] for i in range(3) for j in range(3))
        for lower, u, m in zip(factor, action, mean, strict=True)
    ]
    torch.testing.assert_close(quadratic_advantage(action, mean, factor), torch.stack(by_hand).unsqueeze(-1))


def test_the_advantage_is_zero_at_the_mean_and_negative_elsewhere() -> None:
    factor, mean = factors(200, 2), torch.randn(200, 2, dtype=torch.float64)
    assert torch.equal(quadratic_advantage(mean, mean, factor), torch.zeros(200, 1, dtype=torch.float64))
    assert (quadratic_advantage(mean + torch.randn_like(mean), mean, factor) < 0).all()


def test_it_passes_gradcheck() -> None:
    factor, action, mean = factors(2, 3), *torch.randn(2, 2, 3, dtype=torch.float64)
    assert gradcheck(quadratic_advantage, [x.requires_grad_() for x in (action, mean, factor)])


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_noise_has_the_covariance_of_the_inverse_precision(scale: float) -> None:
    (factor,) = factors(1, 3)
    drawn = precision_noise(torch.randn(200_000, 3, dtype=torch.float64), factor.expand(200_000, 3, 3), scale)
    expected = scale * torch.linalg.inv(factor @ factor.T)
    torch.testing.assert_close(drawn.T.cov(), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    # And exactly, as a linear map of the noise.
    matrix = precision_noise(torch.eye(3, dtype=torch.float64), factor.expand(3, 3, 3), scale).T
    torch.testing.assert_close(matrix @ matrix.T, expected)


def test_the_adaptive_scale_keeps_the_mean_variance() -> None:
    factor = factors(5, 3)
    covariance = precision_scale(factor, 0.3).unsqueeze(-1) * torch.linalg.inv(factor @ factor.mT)
    torch.testing.assert_close(
        covariance.diagonal(dim1=-2, dim2=-1).mean(-1), torch.full((5,), 0.09, dtype=torch.float64)
    )
    torch.testing.assert_close(precision_scale(factor, 0.6), 4 * precision_scale(factor, 0.3))
