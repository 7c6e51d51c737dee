from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torchrl.objectives.value.functional import vec_td_lambda_return_estimate

from lit_mbrl.losses import soft_policy_loss, soft_value, value_gradient_loss
from lit_mbrl.returns import (
    discounted_sums,
    generalized_advantages,
    lambda_returns,
    survival,
    td_k_targets,
    value_expansion,
    value_expansion_reference,
)

B, H, ALPHA, GAMMA = 4, 3, 0.3, 0.9


def rollout(horizon: int = H, grad: bool = False, ends: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reward, log-probability, terminal Q and termination probability (`ends` of them) of a random rollout."""
    tensors = (
        torch.randn(B, horizon, 1, dtype=torch.float64),
        torch.randn(B, horizon + 1, 1, dtype=torch.float64),
        torch.randn(B, 1, dtype=torch.float64),
        torch.rand(B, horizon if ends is None else ends, 1, dtype=torch.float64),
    )
    for tensor in tensors:
        tensor.requires_grad_(grad)
    return tensors


def test_survival() -> None:
    d = torch.tensor([[[0.5], [0.2], [1.0], [0.3]], [[0.0], [0.0], [0.0], [0.0]]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 0.5, 0.4, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(survival(d).squeeze(-1), expected, atol=1e-15, rtol=0)
    assert torch.equal(survival(torch.rand(B, 0, 1)), torch.ones(B, 1, 1))


def test_survival_gradient_is_right_where_termination_is_certain() -> None:
    d = torch.tensor([[[0.5], [1.0], [0.2]]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(survival, (d,))


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("terminal", [True, False])
def test_value_expansion_against_a_loop(horizon: int, terminal: bool) -> None:
    reward, log_prob, q, d = rollout(horizon)
    value = value_expansion(reward, log_prob, q if terminal else None, ALPHA, GAMMA, survival(d))
    assert value.shape == (B, 1)
    for b in range(B):
        expected, alive = 0.0, 1.0
        for t in range(horizon):
            expected += GAMMA**t * alive * (reward[b, t].item() - ALPHA * log_prob[b, t].item())
            alive *= 1.0 - d[b, t].item()
        if terminal:
            expected += GAMMA**horizon * alive * (q[b].item() - ALPHA * log_prob[b, horizon].item())
        assert value[b].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("horizon", [0, 1, 3])
@pytest.mark.parametrize("terminal", [True, False])
def test_value_expansion_code_against_a_loop(horizon: int, terminal: bool) -> None:
    inputs = rollout(horizon, grad=True, ends=horizon + 1 if terminal else horizon)
    reward, log_prob, q, d = inputs
    value = value_expansion_reference(reward, log_prob, q if terminal else None, ALPHA, GAMMA, d)
    expected = []
    for b in range(B):
        total, mask = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        for t in range(horizon):
            mask = mask * (1.0 - d[b, t])  # before the reward: the step's own termination masks it
            total = total + GAMMA**t * (mask * reward[b, t] - ALPHA * log_prob[b, t])
        if terminal:
            mask = mask * (1.0 - d[b, horizon])  # and that of (x_H, u_H) the terminal value
            total = total + GAMMA**horizon * (mask * q[b] - ALPHA * log_prob[b, horizon])
        expected.append(total / (horizon + 1))
    torch.testing.assert_close(value, torch.stack(expected), atol=1e-12, rtol=0)
    if horizon or terminal:
        gradients = (
            torch.autograd.grad(v.sum(), inputs, allow_unused=True, materialize_grads=True)
            for v in (value, torch.stack(expected))
        )
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_value_expansion_code_masks_the_terminal_value_by_the_last_termination() -> None:
    """`H = 1`, `r = Q = 1`, both `d = 1/2`, no entropy: `(1/2 + 1/4) / 2`."""
    one, half = torch.ones(1, 1, 1), torch.full((1, 2, 1), 0.5)
    assert value_expansion_reference(one, torch.zeros(1, 2, 1), one[0], 0.0, 1.0, half).item() == 0.375


def test_the_two_variants_agree_up_to_the_divisor_where_nothing_terminates() -> None:
    reward, log_prob, q, _ = rollout()
    never = torch.zeros(B, H + 1, 1, dtype=torch.float64)
    value = value_expansion(reward, log_prob, q, ALPHA, GAMMA, survival(never[:, :H]))
    code = value_expansion_reference(reward, log_prob, q, ALPHA, GAMMA, never)
    torch.testing.assert_close(code * (H + 1), value, atol=1e-14, rtol=0)


def test_horizon_zero_is_the_soft_value_bit_for_bit() -> None:
    """SVG(0) is the actor of SAC: value, loss and gradient."""
    q = torch.randn(2, 64, 1, requires_grad=True)
    log_prob = torch.randn(64, 1, requires_grad=True)
    alpha = torch.tensor(0.37, requires_grad=True)
    empty = torch.zeros(64, 0, 1)
    value = value_expansion(empty, log_prob.unsqueeze(1), q.amin(0), alpha, GAMMA, survival(empty))
    assert torch.equal(value, soft_value(q, log_prob, alpha))
    loss = soft_policy_loss(q, log_prob, alpha)
    assert torch.equal(value, -loss) and torch.equal(value_gradient_loss(value), loss)
    svg = torch.autograd.grad(value_gradient_loss(value).sum(), (q, log_prob, alpha), allow_unused=True)
    sac = torch.autograd.grad(loss.sum(), (q, log_prob, alpha), allow_unused=True)
    assert torch.equal(svg[0], sac[0]) and torch.equal(svg[1], sac[1]) and svg[2] is sac[2] is None


def test_without_a_terminal_value_the_last_action_does_not_matter() -> None:
    reward, log_prob, _, d = rollout(grad=True)
    value = value_expansion(reward, log_prob, None, ALPHA, GAMMA, survival(d))
    (gradient,) = torch.autograd.grad(value.sum(), log_prob)
    assert (gradient[:, :H] != 0).all() and (gradient[:, H] == 0).all()


def test_after_a_certain_termination_nothing_counts() -> None:
    reward, log_prob, q, d = rollout(grad=True, ends=H + 1)
    with torch.no_grad():
        d[:, 1] = 1.0
    value = value_expansion(reward, log_prob, q, ALPHA, GAMMA, survival(d[:, :H]))
    g_reward, g_log_prob, g_q = torch.autograd.grad(value.sum(), (reward, log_prob, q))
    # The reward of the terminating step itself counts; the public code drops it.
    assert (g_reward[:, :2] != 0).all() and (g_reward[:, 2:] == 0).all()
    assert (g_log_prob[:, 2:] == 0).all() and (g_q == 0).all()
    code = value_expansion_reference(reward, log_prob, q, ALPHA, GAMMA, d)
    g_reward, g_log_prob = torch.autograd.grad(code.sum(), (reward, log_prob))
    assert (g_reward[:, 1:] == 0).all() and (g_log_prob != 0).all()


@pytest.mark.parametrize("bonus", [True, False])
def test_td_k_targets_against_a_loop(bonus: bool) -> None:
    reward, log_prob, terminal, d = rollout()
    entropy = -ALPHA * log_prob[:, 1:] if bonus else None
    targets = td_k_targets(reward, terminal, GAMMA, d, entropy)
    assert targets.shape == (B, H, 1)
    for b in range(B):
        for t in range(H):  # each target forward, from its own step
            expected, weight = 0.0, 1.0
            for i in range(t, H):
                expected += weight * reward[b, i].item()
                weight *= GAMMA * (1.0 - d[b, i].item())
                if bonus and i + 1 < H:
                    expected += weight * -ALPHA * log_prob[b, i + 1].item()
            expected += weight * terminal[b].item()
            assert targets[b, t].item() == pytest.approx(expected, rel=1e-11)


def test_the_first_td_k_target_is_the_value_expansion() -> None:
    reward, log_prob, q, d = rollout()
    terminal = q - ALPHA * log_prob[:, H]
    first = td_k_targets(reward, terminal, GAMMA, d, -ALPHA * log_prob[:, 1:])[:, 0]
    value = value_expansion(reward, log_prob, q, ALPHA, GAMMA, survival(d))
    torch.testing.assert_close(first - ALPHA * log_prob[:, 0], value, atol=1e-13, rtol=0)


def test_gradchecks() -> None:
    inputs = rollout(grad=True)
    alpha = torch.tensor(ALPHA, dtype=torch.float64)
    assert gradcheck(lambda r, p, q, d: value_expansion(r, p, q, alpha, GAMMA, survival(d)), inputs)
    assert gradcheck(lambda r, p, q, d: value_expansion(r, p, None, alpha, GAMMA, survival(d)), inputs)
    with_last = rollout(grad=True, ends=H + 1)
    assert gradcheck(lambda r, p, q, d: value_expansion_reference(r, p, q, alpha, GAMMA, d), with_last)
    assert gradcheck(lambda r, p, q, d: td_k_targets(r, q, GAMMA, d, -ALPHA * p[:, 1:]), inputs)


def test_temperature_is_a_constant() -> None:
    reward, log_prob, q, d = rollout(grad=True, ends=H + 1)
    alpha = torch.tensor(ALPHA, dtype=torch.float64, requires_grad=True)
    for value in (
        value_expansion(reward, log_prob, q, alpha, GAMMA, survival(d[:, :H])),
        value_expansion_reference(reward, log_prob, q, alpha, GAMMA, d),
    ):
        assert torch.autograd.grad(value.sum(), alpha, allow_unused=True) == (None,)


def test_discounts_are_not_rounded_in_half_precision() -> None:
    reward = torch.zeros(1, 64, 1, dtype=torch.bfloat16)
    q, log_prob = torch.ones(1, 1, dtype=torch.bfloat16), torch.zeros(1, 65, 1, dtype=torch.bfloat16)
    value = value_expansion(reward, log_prob, q, 0.0, 0.99, survival(reward))
    assert value.item() == pytest.approx(0.99**64, rel=1e-5)  # 0.988^64 is off by 10 %


def made_up_rollout(num: int = 3, steps: int = 12) -> tuple[torch.Tensor, ...]:
    """Rewards, values, next values, terminations and ends, of both kinds, in float64."""
    reward, value, next_value = torch.randn(3, num, steps, 1, dtype=torch.float64).unbind()
    terminated = torch.rand(num, steps, 1) < 0.2
    done = terminated | (torch.rand(num, steps, 1) < 0.2)
    terminated[0, 2], terminated[0, 4], done[0, 2], done[0, 4] = True, False, True, True
    return reward, value, next_value, terminated, done


@pytest.mark.parametrize("lmbda", [0.0, 0.7, 1.0])
def test_generalized_advantages_are_those_of_a_loop(lmbda: float) -> None:
    reward, value, next_value, terminated, done = made_up_rollout()
    found = generalized_advantages(reward, value, next_value, terminated, done, 0.9, lmbda)
    for n in range(3):
        for t in range(12):
            expected, weight = 0.0, 1.0
            for i in range(t, 12):
                bootstrap = 0.0 if terminated[n, i] else 0.9 * next_value[n, i].item()
                expected += weight * (reward[n, i].item() + bootstrap - value[n, i].item())
                weight *= 0.9 * lmbda
                if done[n, i]:
                    break
            assert found[n, t].item() == pytest.approx(expected, abs=1e-12)


def test_generalized_advantages_are_torchrl_s() -> None:
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    reward, value, next_value, terminated, done = made_up_rollout()
    expected, _ = generalized_advantage_estimate(0.95, 0.8, value, next_value, reward, done=done, terminated=terminated)
    torch.testing.assert_close(generalized_advantages(reward, value, next_value, terminated, done, 0.95, 0.8), expected)


def test_lambda_one_is_the_return_of_the_rest_of_the_episode_less_the_value() -> None:
    """Where successors are the next rows, values telescope away."""
    reward, value, _, terminated, _ = made_up_rollout(1)
    next_value = torch.cat([value[:, 1:], torch.randn(1, 1, 1, dtype=torch.float64)], 1)
    found = generalized_advantages(reward, value, next_value, terminated, terminated, 0.9, 1.0)
    total = next_value[0, -1].item()
    for t in reversed(range(12)):
        total = reward[0, t].item() + 0.9 * (0.0 if terminated[0, t] else total)
        assert (found + value)[0, t].item() == pytest.approx(total, abs=1e-12)


def test_discounted_sums_stop_with_the_episode_and_pass_their_gradient() -> None:
    x = torch.randn(2, 5, 1, dtype=torch.float64, requires_grad=True)
    done = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool).unsqueeze(-1)
    sums = discounted_sums(x, done, 0.5)
    a, b = x.detach().squeeze(-1)
    expected = [a[0] + 0.5 * a[1], a[1], a[2] + 0.5 * a[3] + 0.25 * a[4], a[3] + 0.5 * a[4], a[4]]
    torch.testing.assert_close(sums[0, :, 0].detach(), torch.stack(expected))
    assert sums[1, 0].item() == pytest.approx(sum(0.5**i * b[i].item() for i in range(5)))
    assert torch.autograd.gradcheck(lambda value: discounted_sums(value, done, 0.5), x)


def loop_lambda_return(reward: Tensor, value: Tensor, ends: Tensor, gamma: float, lmbda: float, t: int) -> Tensor:
    """The weighted sum of all n-step returns from step t, written out."""
    horizon = reward.shape[1]

    def n_step(n: int) -> Tensor:
        total, discount = torch.zeros_like(reward[:, 0]), torch.ones_like(reward[:, 0])
        for k in range(t, t + n):
            total = total + discount * reward[:, k]
            discount = discount * gamma * (1.0 - ends[:, k])
        return total + discount * value[:, t + n - 1]

    last = horizon - t
    mixed = sum((1 - lmbda) * lmbda ** (n - 1) * n_step(n) for n in range(1, last))
    return mixed + lmbda ** (last - 1) * n_step(last)


@pytest.mark.parametrize("lmbda", [0.0, 0.6, 1.0])
def test_lambda_returns_are_the_weighted_sum_of_n_step_returns(lmbda: float) -> None:
    reward, value, ends = torch.randn(3, 5, 1), torch.randn(3, 5, 1), torch.rand(3, 5, 1)
    found = lambda_returns(reward, value, ends, 0.9, lmbda)
    for t in range(5):
        torch.testing.assert_close(found[:, t], loop_lambda_return(reward, value, ends, 0.9, lmbda, t))


def test_lambda_returns_are_torchrl_s_where_nothing_or_everything_ends() -> None:
    reward, value = torch.randn(3, 6, 1), torch.randn(3, 6, 1)
    for terminated in (torch.zeros(3, 6, 1, dtype=torch.bool), torch.rand(3, 6, 1) < 0.3):
        theirs = vec_td_lambda_return_estimate(0.97, 0.9, value, reward, terminated, terminated)
        torch.testing.assert_close(lambda_returns(reward, value, terminated.float(), 0.97, 0.9), theirs)


def test_first_lambda_return_is_eq_5_of_maxent_dreamer() -> None:
    """`l^T g^T V(s_T) + sum_t g^t l^t (r_t + g (1 - l) V(s_{t+1}))`."""
    reward, value, gamma, lmbda = torch.randn(2, 4, 1), torch.randn(2, 4, 1), 0.9, 0.7
    expected = (lmbda * gamma) ** 4 * value[:, 3]
    for t in range(4):
        expected = expected + (gamma * lmbda) ** t * (reward[:, t] + gamma * (1 - lmbda) * value[:, t])
    found = lambda_returns(reward, value, torch.zeros(2, 4, 1), gamma, lmbda)
    torch.testing.assert_close(found[:, 0], expected)
