"""The policies' densities and entropies against torch.distributions, and what they draw."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from lit_mbrl.networks import CategoricalActor, GaussianActor, orthogonal_mlp


def test_gaussian_is_torch_s() -> None:
    actor = GaussianActor(3, 2, [8]).double()
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-0.5, 0.25]))
    features, action = torch.randn(7, 3, dtype=torch.float64), 3 * torch.randn(7, 2, dtype=torch.float64)
    expected = Independent(Normal(actor.mean(features), actor.log_std.exp()), 1)
    log_prob, entropy = actor.log_prob_entropy(features, action)
    torch.testing.assert_close(log_prob, expected.log_prob(action).unsqueeze(-1))
    torch.testing.assert_close(entropy, expected.entropy().unsqueeze(-1))
    torch.testing.assert_close(actor.entropy(features), entropy)
    assert torch.autograd.gradcheck(lambda u: actor.log_prob_entropy(features, u)[0], action.requires_grad_(True))


def test_categorical_is_torch_s() -> None:
    actor = CategoricalActor(3, 4, [8]).double()
    features, action = 5 * torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,))
    expected = Categorical(logits=actor.logits(features))
    log_prob, entropy = actor.log_prob_entropy(features, action)
    torch.testing.assert_close(log_prob, expected.log_prob(action).unsqueeze(-1))
    torch.testing.assert_close(entropy, expected.entropy().unsqueeze(-1))
    torch.testing.assert_close(actor.entropy(features), entropy)
    assert torch.equal(actor.mode(features), expected.probs.argmax(-1))


def test_divergences_are_torch_s() -> None:
    features = torch.randn(7, 3, dtype=torch.float64)
    acted, actor = (GaussianActor(3, 2, [8]).double() for _ in range(2))
    with torch.no_grad():
        acted.log_std.copy_(torch.tensor([-0.5, 0.25]))
    policies = [Independent(Normal(each.mean(features), each.log_std.exp()), 1) for each in (acted, actor)]
    divergence = actor.kl(acted.distribution(features), features)
    torch.testing.assert_close(divergence, kl_divergence(*policies).unsqueeze(-1))
    assert torch.equal(acted.kl(acted.distribution(features), features), torch.zeros(7, 1, dtype=torch.float64))
    acted, actor = (CategoricalActor(3, 4, [8]).double() for _ in range(2))
    policies = [Categorical(logits=5 * each.logits(features)) for each in (acted, actor)]
    with torch.no_grad():
        for each in (acted, actor):
            each.logits[-1].weight *= 5
    divergence = actor.kl(acted.distribution(features), features)
    torch.testing.assert_close(divergence, kl_divergence(*policies).unsqueeze(-1))


def test_small_divergences_keep_their_digits() -> None:
    """A policy that has moved by a thousandth: in float32 one part in a million of 1 would be all of it."""
    acted = GaussianActor(3, 2, [])
    moved = GaussianActor(3, 2, [], init_log_std=1e-3)
    moved.mean.load_state_dict(acted.mean.state_dict())
    features = torch.randn(5, 3)
    expected = 2 * (0.5 * math.expm1(-2e-3) + 1e-3)
    assert moved.kl(acted.distribution(features), features)[0].item() == pytest.approx(expected, rel=1e-3)


def test_samples_have_the_policy_s_distribution() -> None:
    categorical = CategoricalActor(2, 3, [])
    with torch.no_grad():
        categorical.logits[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]))
    features = torch.tensor([0.7, -0.4]).expand(100_000, 2)
    action = categorical.sample(features)
    assert action.dtype == torch.int64 and action.shape == (100_000,)
    shares = action.bincount(minlength=3) / 100_000
    probs = categorical.logits(features[:1]).softmax(-1)[0]
    assert (shares - probs).abs().max() < 5 * math.sqrt(0.25 / 100_000)

    gaussian = GaussianActor(2, 1, [], init_log_std=-1.0)
    drawn = gaussian.sample(features)
    assert drawn.mean().item() == pytest.approx(gaussian.mean(features[:1]).item(), abs=5e-3)
    assert drawn.std().item() == pytest.approx(math.exp(-1.0), rel=0.02)


def test_evaluation_acts_within_the_bounds() -> None:
    actor = GaussianActor(2, 2, [])
    with torch.no_grad():
        actor.mean[0].bias.copy_(torch.tensor([3.0, -0.25]))
        actor.mean[0].weight.zero_()
    assert actor.mode(torch.randn(1, 2)).tolist() == [[1.0, -0.25]]


def test_weights_are_orthogonal_with_their_gains() -> None:
    net = orthogonal_mlp(6, [6, 6], 3, gain=0.01)
    for layer, gain in ((net[0], math.sqrt(2)), (net[2], math.sqrt(2)), (net[4], 0.01)):
        size = layer.weight.shape[0]
        torch.testing.assert_close(layer.weight @ layer.weight.T, gain**2 * torch.eye(size), atol=1e-6, rtol=0.0)
        assert not layer.bias.any()
