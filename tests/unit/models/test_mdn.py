"""The mixture density network against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from lit_mbrl.models import Mixture, MixtureDensityNetwork


def theirs(mixture: Mixture) -> MixtureSameFamily:
    parts = Independent(Normal(mixture.mean, mixture.std), 1)
    return MixtureSameFamily(Categorical(logits=mixture.log_weight), parts)


def test_log_likelihood_is_torch_s() -> None:
    net = MixtureDensityNetwork(40, heads=8, hidden=(32,))
    mixture = net(torch.randn(6, 40))
    state = 3.0 + 2.0 * torch.randn(6, 5, 40)
    expected = theirs(mixture).log_prob(state.transpose(0, 1)).transpose(0, 1).unsqueeze(-1)
    torch.testing.assert_close(mixture.log_prob(state), expected, rtol=1e-6, atol=2e-4)
    doubles = Mixture(*(value.double() for value in mixture))
    expected = theirs(doubles).log_prob(state.double().transpose(0, 1)).transpose(0, 1).unsqueeze(-1)
    torch.testing.assert_close(doubles.log_prob(state.double()), expected)


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_float32_is_float64_where_narrow_components_lie_far_apart(spread: float) -> None:
    """At the paper's 328 features: value and gradient at states of a component, between two, and far from all."""
    num, heads, features = 8, 8, 328
    weight, mean = torch.randn(num, heads).log_softmax(-1), spread * torch.randn(num, heads, features)
    mean[:, 1] = mean[:, 0] + 0.05 * torch.randn(num, features)  # two that compete for the same states
    std = 0.1 + 0.1 * torch.rand(num, heads, features)
    near = mean + std * torch.randn(num, heads, features)
    state = torch.cat([near, mean.mean(1, keepdim=True), spread * torch.randn(num, 2, features)], 1)
    single = [value.requires_grad_() for value in (weight, mean, std, state)]
    double = [value.detach().double().requires_grad_() for value in single]
    found = Mixture(*single[:3]).log_prob(single[3])
    parts = Normal(double[1].unsqueeze(1), double[2].unsqueeze(1)).log_prob(double[3].unsqueeze(2)).sum(-1)  # [N, n, K]
    expected = (double[0].unsqueeze(1) + parts).logsumexp(-1, keepdim=True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=2e-7)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, single, upstream)
    exact = torch.autograd.grad(expected, double, upstream.double())
    for ours, plain in zip(gradients, exact, strict=True):
        torch.testing.assert_close(ours.double(), plain, atol=1e-3, rtol=1e-5)


def test_gradients_of_the_log_likelihood() -> None:
    raw = [torch.randn(2, 3), torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.5, torch.randn(2, 5, 4)]
    inputs = [value.double().requires_grad_() for value in raw]
    assert torch.autograd.gradcheck(lambda w, m, s, x: Mixture(w.log_softmax(-1), m, s).log_prob(x), inputs)


def test_samples_have_the_moments_of_the_mixture() -> None:
    mixture = MixtureDensityNetwork(2, heads=3, hidden=(8,))(torch.randn(1, 2))
    mixture = Mixture(torch.tensor([[0.2, 0.5, 0.3]]).log(), mixture.mean * 5, mixture.std)
    num = 100_000
    many = Mixture(*(value.expand(num, *value.shape[1:]) for value in mixture))
    samples = many.sample(torch.rand(num, 1), torch.randn(num, 2))
    expected = theirs(mixture)
    error = samples.std(0) / num**0.5
    assert ((samples.mean(0) - expected.mean[0]).abs() < 5 * error).all()
    torch.testing.assert_close(samples.var(0), expected.variance[0], rtol=0.05, atol=0.01)
    each = many.component_samples(torch.randn(num, 3, 2))
    weighted = (many.log_weight.exp().unsqueeze(-1) * each).sum(1)
    assert ((weighted.mean(0) - expected.mean[0]).abs() < 5 * weighted.std(0) / num**0.5).all()


def test_the_choice_of_a_component_follows_its_probability() -> None:
    mixture = Mixture(
        torch.tensor([[0.25, 0.5, 0.25]]).log(), torch.tensor([[[0.0], [1.0], [2.0]]]), torch.ones(1, 3, 1)
    )
    picked = [
        mixture.sample(torch.tensor([[u]]), torch.zeros(1, 1)).item() for u in (0.0, 0.24, 0.26, 0.74, 0.76, 0.999)
    ]
    assert picked == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
