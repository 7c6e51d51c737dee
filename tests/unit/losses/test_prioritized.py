"""MEMR's equations against torch.distributions, closed forms and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from lit_mbrl.losses import (
    behaviour_loss,
    entropy_priority,
    gaussian_log_prob,
    importance_weight,
    normalized_by_max,
    normalized_by_mean,
    raw_action,
    sampling_mass,
    weighted,
)

D = torch.float64


def gaussian(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(*shape, dtype=D), torch.randn(*shape, dtype=D), torch.randn(*shape, dtype=D)


def test_log_prob_is_torch_s() -> None:
    action, mean, log_std = gaussian(5, 3)
    torch.testing.assert_close(gaussian_log_prob(action, mean, log_std), Normal(mean, log_std.exp()).log_prob(action))


def test_priority_is_equation_4() -> None:
    action, mean, log_std = gaussian(20, 1)
    density, sigma = Normal(mean, log_std.exp()).log_prob(action).exp(), log_std.exp()
    torch.testing.assert_close(
        entropy_priority(action, mean, log_std), -torch.log(math.sqrt(2 * math.pi) * density * sigma)
    )


def test_priority_is_half_the_squared_distance_and_so_never_negative() -> None:
    action, mean, log_std = gaussian(20, 4)
    expected = (0.5 * ((action - mean) / log_std.exp()) ** 2).sum(-1, keepdim=True)
    torch.testing.assert_close(entropy_priority(action, mean, log_std), expected)
    assert (entropy_priority(mean, mean, log_std).abs() < 1e-12).all()


def test_the_state_of_the_highest_priority_raises_the_entropy_most() -> None:
    """Theorem 3.1 in one dimension: of the actions that may be added to those of a Gaussian psi."""
    actions = torch.randn(50, dtype=D)
    mean, std = actions.mean(), actions.std(correction=0)
    candidates = torch.linspace(-4, 4, 17, dtype=D)
    gains = [torch.cat([actions, a.view(1)]).std(correction=0).log() - std.log() for a in candidates]
    priority = entropy_priority(candidates.view(-1, 1), mean.expand(17, 1), std.log().expand(17, 1)).squeeze(-1)
    assert int(torch.stack(gains).argmax()) == int(priority.argmax())
    assert torch.equal(torch.stack(gains).argsort(), priority.argsort())


def test_probability_and_weights_are_equations_3_and_5() -> None:
    priority, alpha, beta = torch.rand(7, dtype=D) + 0.1, 0.6, 0.4
    mass = sampling_mass(priority, alpha)
    probability = mass / mass.sum()
    total = sum(float(p) ** alpha for p in priority)
    for i, p in enumerate(priority.tolist()):
        assert float(probability[i]) == pytest.approx(p**alpha / total)
        assert float(importance_weight(probability, 7, beta)[i]) == pytest.approx((1 / 7 / (p**alpha / total)) ** beta)
    assert torch.equal(sampling_mass(priority, 0.0), torch.ones(7, dtype=D))


def test_full_correction_makes_every_expectation_that_of_uniform_draws() -> None:
    priority, values = torch.rand(9, dtype=D) + 0.1, torch.randn(9, dtype=D)
    probability = priority / priority.sum()
    weight = importance_weight(probability, 9, 1.0)
    torch.testing.assert_close((probability * weight * values).sum(), values.mean())
    torch.testing.assert_close(importance_weight(probability, 9, 0.0), torch.ones(9, dtype=D))


def test_normalisations() -> None:
    weight = torch.tensor([0.5, 1.0, 4.0])
    assert torch.equal(normalized_by_max(weight), torch.tensor([0.125, 0.25, 1.0]))
    torch.testing.assert_close(normalized_by_mean(weight), weight / (5.5 / 3))


def test_weights_scale_each_critic_s_rows_and_get_no_gradient() -> None:
    loss, weight = torch.rand(2, 5, 1, requires_grad=True), torch.rand(5, 1, requires_grad=True)
    result = weighted(loss, weight)
    for e in range(2):
        for i in range(5):
            assert result[e, i].item() == (weight[i] * loss[e, i]).item()
    result.sum().backward()
    assert weight.grad is None and torch.equal(loss.grad, weight.detach().expand(2, 5, 1))


def test_behaviour_loss_is_the_likelihood_and_has_the_right_gradient() -> None:
    action, mean, log_std = gaussian(4, 2)
    expected = -Normal(mean, log_std.exp()).log_prob(action).sum(-1, keepdim=True)
    torch.testing.assert_close(behaviour_loss(action, mean, log_std), expected)
    mean.requires_grad_(True)
    log_std.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m, s: behaviour_loss(action, m, s), (mean, log_std))


def test_raw_action_undoes_the_tanh_and_is_finite_at_its_ends() -> None:
    raw = torch.linspace(-3, 3, 13, dtype=D)
    torch.testing.assert_close(raw_action(torch.tanh(raw).unsqueeze(-1)).squeeze(-1), raw)
    assert torch.isfinite(raw_action(torch.tensor([[-1.0, 1.0]]))).all()
