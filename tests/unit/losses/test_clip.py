"""PPO's objective: its value by cases, its gradient, and TorchRL's `ClipPPOLoss` on the same policy."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.autograd import gradcheck
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss

from lit_mbrl import losses

EPSILON = 0.2


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.1, 2.0, 2.2, 2.0),  # inside
        (1.5, 2.0, 2.4, 0.0),  # better than the policy that acted, far enough
        (1.5, -2.0, -3.0, -2.0),  # worse, and the way back is open
        (0.5, 2.0, 1.0, 2.0),
        (0.5, -2.0, -1.6, 0.0),
    ],
)
def test_clip_objective_by_cases(ratio: float, advantage: float, objective: float, slope: float) -> None:
    log_prob = torch.tensor([[ratio]]).log().requires_grad_(True)
    found = losses.clip_objective(log_prob, torch.zeros(1, 1), torch.tensor([[advantage]]), EPSILON)
    found.sum().backward()
    assert found.item() == pytest.approx(objective)
    assert log_prob.grad is not None and log_prob.grad.item() == pytest.approx(slope * ratio)


def test_the_advantage_s_gradient_passes_where_the_ratio_s_is_cut_off() -> None:
    log_prob = torch.tensor([[1.1], [1.5]]).log().requires_grad_(True)
    advantage = torch.tensor([[2.0], [2.0]], requires_grad=True)
    losses.clip_objective(log_prob, torch.zeros(2, 1), advantage, EPSILON).sum().backward()
    assert advantage.grad is not None and log_prob.grad is not None
    assert advantage.grad.flatten().tolist() == pytest.approx([1.1, 1.2])
    assert log_prob.grad[1].item() == 0.0


def test_objective_and_gradient_are_those_of_torchrl() -> None:
    """TorchRL's critic loss is `l2` with its own coefficient; ours has both as arguments of the caller."""
    torch.manual_seed(1)
    actor = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor()).double()
    policy = ProbabilisticActor(
        TensorDictModule(actor, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=lambda loc, scale: torch.distributions.Independent(
            torch.distributions.Normal(loc, scale), 1
        ),
        return_log_prob=True,
    )
    critic = nn.Linear(3, 1).double()
    value = ValueOperator(critic, ["observation"])
    theirs = ClipPPOLoss(
        policy,
        value,
        clip_epsilon=EPSILON,
        entropy_coeff=0.03,
        critic_coeff=0.7,
        loss_critic_type="l2",
        normalize_advantage=False,
    )
    num = 64
    batch = TensorDict(
        {
            "observation": torch.randn(num, 3, dtype=torch.float64),
            "action": torch.randn(num, 2, dtype=torch.float64),
            "advantage": torch.randn(num, 1, dtype=torch.float64),
            "value_target": torch.randn(num, 1, dtype=torch.float64),
        },
        [num],
    )
    distribution = policy.get_dist(batch)
    log_prob = distribution.log_prob(batch["action"]).unsqueeze(-1)
    old = (log_prob + 0.3 * torch.randn_like(log_prob)).detach()
    batch["action_log_prob"] = old.squeeze(-1)
    found = theirs(batch.clone())
    expected = found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]
    ours = (
        -losses.clip_objective(log_prob, old, batch["advantage"], EPSILON).mean()
        + 0.7 * losses.value_loss(critic(batch["observation"]), batch["value_target"]).mean()
        - 0.03 * distribution.entropy().mean()
    )
    torch.testing.assert_close(
        -losses.clip_objective(log_prob, old, batch["advantage"], EPSILON).mean(), found["loss_objective"]
    )
    torch.testing.assert_close(
        losses.clip_fraction(log_prob, old, EPSILON).mean(), found["clip_fraction"].to(log_prob), rtol=0.0, atol=1e-6
    )
    parameters = [*actor.parameters(), *critic.parameters()]
    torch.testing.assert_close(ours, expected)
    gradients = torch.autograd.grad(ours, parameters)
    expected.backward()
    names = {**dict(theirs.named_parameters())}
    theirs_flat = torch.cat([p.grad.flatten() for p in names.values() if p.grad is not None])
    torch.testing.assert_close(torch.cat([g.flatten() for g in gradients]).sort().values, theirs_flat.sort().values)


def test_value_clipping_takes_the_larger_error() -> None:
    value, old, target = (torch.tensor(x).unsqueeze(-1) for x in ([1.5, 1.1, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, -1.0]))
    found = losses.clipped_value_loss(value, old, target, EPSILON).flatten()
    assert found.tolist() == pytest.approx([(1.2 - 2.0) ** 2, 0.9**2, 1.8**2])


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_gradcheck_of_objective_and_value_losses() -> None:
    old = double(6, 1).detach()
    assert gradcheck(lambda log_prob, a: losses.clip_objective(log_prob, old, a, EPSILON), (double(6, 1), double(6, 1)))
    assert gradcheck(losses.value_loss, (double(6, 1), double(6, 1)))
    assert gradcheck(lambda v, r: losses.clipped_value_loss(v, old, r, EPSILON), (double(6, 1), double(6, 1)))


def test_the_target_s_gradient_is_minus_the_chosen_error_s() -> None:
    """Also where the value is cut off and has none itself; a constant target is the caller's to detach."""
    value, old, target = (torch.tensor(x).unsqueeze(-1) for x in ([1.5, 1.1, 0.0], [1.0, 1.0, 1.0], [2.0, 2.0, -1.0]))
    value.requires_grad_(True)
    target.requires_grad_(True)
    losses.clipped_value_loss(value, old, target, EPSILON).sum().backward()
    assert value.grad is not None and target.grad is not None
    assert value.grad.flatten().tolist() == pytest.approx([0.0, -1.8, 0.0])
    assert target.grad.flatten().tolist() == pytest.approx([1.6, 1.8, -3.6])


def test_standardized_has_mean_0_and_deviation_1_and_constant_statistics() -> None:
    advantage = (torch.randn(50, 1, dtype=torch.float64) * 3 + 7).requires_grad_(True)
    found = losses.standardized(advantage)
    assert found.mean().item() == pytest.approx(0.0, abs=1e-12) and found.std().item() == pytest.approx(1.0)
    (gradient,) = torch.autograd.grad(found.sum(), advantage)
    torch.testing.assert_close(gradient, torch.full_like(advantage, 1 / (advantage.std().item() + 1e-8)))
    (gradient,) = torch.autograd.grad(losses.standardized(advantage, differentiable=True).sum(), advantage)
    assert gradient.abs().max() < 1e-12  # a common shift changes nothing
    assert torch.equal(losses.standardized(advantage[:1]), advantage[:1])


def test_divergence_estimates_the_kl_divergence() -> None:
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.3, 1.2)
    action = old.sample((200_000, 1))
    found = losses.approx_kl(new.log_prob(action), old.log_prob(action))
    assert found.min() >= 0
    assert found.mean().item() == pytest.approx(torch.distributions.kl_divergence(old, new).item(), abs=2e-3)
