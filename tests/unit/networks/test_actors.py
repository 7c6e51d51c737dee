from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from lit_mbrl.networks import DeterministicActor, TanhGaussianActor
from lit_mbrl.utils.errors import OptionError


def constant_actor(mean: float, raw_log_std: float, squash: str = "clamp", **kwargs: object) -> TanhGaussianActor:
    """A one-dimensional actor whose outputs do not depend on the observation."""
    actor = TanhGaussianActor(1, 1, [], log_std_squash=squash, **kwargs)  # type: ignore[arg-type]
    linear = actor.net[0]
    assert isinstance(linear, nn.Linear)
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_(torch.tensor([mean, raw_log_std]))
    return actor


def reference(mean: Tensor, log_std: Tensor) -> TransformedDistribution:
    # cache_size=1 keeps the pre-tanh value, so that the reference does not invert a saturated tanh.
    return TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)])


@pytest.mark.parametrize("squash", ["tanh", "clamp"])
def test_sample_and_log_prob_equal_torch_distributions(squash: str) -> None:
    actor = TanhGaussianActor(3, 2, [16], log_std_squash=squash).double()  # type: ignore[arg-type]
    observation = torch.randn(50, 4, 3, dtype=torch.float64)
    mean, log_std = actor(observation)
    distribution = reference(mean, log_std)
    torch.manual_seed(7)
    expected_action = distribution.rsample()
    expected = distribution.log_prob(expected_action).unsqueeze(-1)
    torch.manual_seed(7)
    noise = torch.normal(torch.zeros_like(mean), torch.ones_like(mean))
    action, log_prob = actor.sample(observation, noise)
    assert action.shape == (50, 4, 2) and log_prob.shape == (50, 4, 1)
    torch.testing.assert_close(action, expected_action, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_prob, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("pre_tanh", [-20.0, 20.0])
def test_log_prob_is_finite_and_right_in_float32_where_tanh_saturates(pre_tanh: float) -> None:
    actor = constant_actor(pre_tanh, 0.0)
    action, log_prob = actor.sample(torch.zeros(1, 1), torch.zeros(1, 1))
    assert action.abs().item() == 1.0
    # log(1 - tanh(x)^2) -> 2 log 2 - 2 |x|
    expected = -0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(pre_tanh))
    assert log_prob.item() == pytest.approx(expected, rel=1e-6)
    log_prob.sum().backward()
    (gradient,) = [p.grad for p in actor.parameters() if p.grad is not None and p.ndim == 1]
    assert torch.isfinite(gradient).all()
    assert gradient[0].item() == pytest.approx(math.copysign(2.0, pre_tanh), rel=1e-5)  # d/dx of -log(1 - tanh^2)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.3)])
def test_density_integrates_to_one(mean: float, log_std: float) -> None:
    actor = constant_actor(mean, log_std).double()
    # The trapezoid rule over actions; a grid even in the noise is dense where the squashed density is steep.
    noise = torch.linspace(-9.0, 9.0, 20001, dtype=torch.float64).unsqueeze(-1)
    action, log_prob = actor.sample(torch.zeros(20001, 1, dtype=torch.float64), noise)
    mass = torch.trapezoid(log_prob.exp().squeeze(-1), action.squeeze(-1))
    assert mass.item() == pytest.approx(1.0, abs=1e-6)


def test_log_std_bounds() -> None:
    def log_std(squash: str, raw: float) -> float:
        actor = constant_actor(0.0, raw, squash, log_std_bounds=(-5.0, 2.0)).double()
        return actor(torch.zeros(1, 1, dtype=torch.float64))[1].item()

    assert log_std("tanh", 0.0) == pytest.approx(-1.5)
    assert log_std("tanh", 0.5) == pytest.approx(-1.5 + 3.5 * math.tanh(0.5))
    assert log_std("tanh", 50.0) == pytest.approx(2.0) and log_std("tanh", -50.0) == pytest.approx(-5.0)
    assert log_std("clamp", 0.5) == pytest.approx(0.5)
    assert log_std("clamp", 50.0) == 2.0 and log_std("clamp", -50.0) == -5.0


def test_mode_is_tanh_of_mean_and_sample_without_noise() -> None:
    actor = TanhGaussianActor(3, 2, [16])
    observation = torch.randn(5, 3)
    assert torch.equal(actor.mode(observation), torch.tanh(actor(observation)[0]))
    assert torch.equal(actor.mode(observation), actor.sample(observation, torch.zeros(5, 2))[0])


def test_reparameterised_gradients() -> None:
    actor = TanhGaussianActor(2, 2, []).double()
    names = [name for name, _ in actor.named_parameters()]
    noise = torch.randn(3, 2, dtype=torch.float64)

    def sample(observation: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            _Sampler(actor), {f"actor.{k}": v for k, v in values.items()}, (observation, noise)
        )

    inputs = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True)]
    inputs += [p.detach().clone().requires_grad_() for p in actor.parameters()]
    assert torch.autograd.gradcheck(sample, inputs)


class _Sampler(nn.Module):
    def __init__(self, actor: TanhGaussianActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor.sample(observation, noise)


@pytest.mark.parametrize("kwargs", [{"log_std_bounds": (2.0, -5.0)}, {"log_std_squash": "sigmoid"}])
def test_wrong_options_are_user_errors(kwargs: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(kwargs))):
        TanhGaussianActor(1, 1, [], **kwargs)


def test_deterministic_actor() -> None:
    actor = DeterministicActor(3, 2, [16])
    observation = torch.randn(4, 5, 3)
    assert torch.equal(actor(observation), torch.tanh(actor.net(observation)))
    assert actor(observation).shape == (4, 5, 2)
