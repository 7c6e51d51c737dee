"""Divergences and likelihoods of the latent models against torch.distributions and Monte Carlo."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from lit_mbrl.losses import (
    discounted_weights,
    free_nats,
    free_nats_of_steps,
    gaussian_kl,
    jeffreys,
    pixel_loss,
    smooth_l1,
    standard_normal_kl,
    unit_gaussian_loss,
)


def gaussians() -> tuple[torch.Tensor, ...]:
    return torch.randn(4, 3, 5), torch.rand(4, 3, 5) + 0.2, torch.randn(4, 3, 5), torch.rand(4, 3, 5) + 0.2


def diagonal(mean: torch.Tensor, std: torch.Tensor) -> Independent:
    return Independent(Normal(mean, std), 1)


def test_divergences_are_torch_s() -> None:
    mean, std, other_mean, other_std = gaussians()
    p, q = diagonal(mean, std), diagonal(other_mean, other_std)
    there, back = kl_divergence(p, q).unsqueeze(-1), kl_divergence(q, p).unsqueeze(-1)
    torch.testing.assert_close(gaussian_kl(mean, std, other_mean, other_std), there)
    torch.testing.assert_close(jeffreys(mean, std, other_mean, other_std), there + back)
    normal = diagonal(torch.zeros_like(mean), torch.ones_like(std))
    torch.testing.assert_close(standard_normal_kl(mean, std), kl_divergence(p, normal).unsqueeze(-1))


def test_divergence_is_the_expected_difference_of_log_densities() -> None:
    mean, std, other_mean, other_std = (value[:1, :1] for value in gaussians())
    p, q = diagonal(mean, std), diagonal(other_mean, other_std)
    draws = p.sample((200_000,))
    samples = p.log_prob(draws) - q.log_prob(draws)
    kl = gaussian_kl(mean, std, other_mean, other_std).squeeze()
    error = samples.std() / len(samples) ** 0.5
    assert abs(samples.mean() - kl) < 5 * error


def test_divergence_of_a_distribution_from_itself_is_zero_with_no_gradient() -> None:
    mean, std, *_ = (value.double().requires_grad_() for value in gaussians())
    for divergence in (gaussian_kl, jeffreys):
        value = divergence(mean, std, mean.detach(), std.detach())
        gradients = torch.autograd.grad(value.sum(), [mean, std])
        assert value.abs().max() < 1e-12
        assert max(gradient.abs().max() for gradient in gradients) < 1e-12


@pytest.mark.parametrize("divergence", [gaussian_kl, jeffreys])
def test_gradients_of_divergences(divergence: object) -> None:
    inputs = [value[0].double().requires_grad_() for value in gaussians()]
    assert torch.autograd.gradcheck(divergence, inputs)


def test_free_nats_are_those_of_the_mean() -> None:
    kl = torch.tensor([1.0, 9.0], requires_grad=True)
    assert free_nats(kl.mean(), 3.0) == 5.0
    assert free_nats(kl.mean(), 6.0) == 6.0
    (gradient,) = torch.autograd.grad(free_nats(kl.mean(), 6.0), kl)
    assert gradient.tolist() == [0.0, 0.0]


def test_planet_s_free_nats_are_those_of_every_step() -> None:
    """They are subtracted, and a step below them has no gradient even where the mean is above."""
    kl = torch.tensor([[[1.0], [9.0]], [[3.5], [2.9]]], requires_grad=True)
    loss = free_nats_of_steps(kl, 3.0)
    assert loss.flatten().tolist() == [0.0, 6.0, 0.5, 0.0]
    (gradient,) = torch.autograd.grad(loss.mean(), kl)
    assert gradient.flatten().tolist() == [0.0, 0.25, 0.25, 0.0]


def test_likelihoods_are_torch_s_up_to_their_constant() -> None:
    image, predicted = torch.rand(2, 3, 3, 4, 4) - 0.5, torch.randn(2, 3, 3, 4, 4)
    constant = 48 * 0.5 * torch.log(torch.tensor(2 * torch.pi))
    expected = -Independent(Normal(predicted, 1.0), 3).log_prob(image).unsqueeze(-1) - constant
    torch.testing.assert_close(pixel_loss(predicted, image), expected)
    flat = unit_gaussian_loss(predicted.flatten(2), image.flatten(2))
    torch.testing.assert_close(flat, pixel_loss(predicted, image))


def test_smooth_l1_is_quadratic_then_linear() -> None:
    error = torch.tensor([[0.5], [-0.5], [3.0], [-3.0]])
    assert smooth_l1(error, torch.zeros(4, 1)).squeeze(-1).tolist() == [0.125, 0.125, 2.5, 2.5]


def test_weights_are_the_product_of_the_discounts_before() -> None:
    stays = torch.tensor([[[0.5], [0.2], [0.9]]], requires_grad=True)
    weight = discounted_weights(stays)
    torch.testing.assert_close(weight, torch.tensor([[[1.0], [0.5], [0.1]]]))
    assert not weight.requires_grad
