"""SVG's policy gradient on a discounted linear-quadratic regulator, against the analytic one.

`x' = A x + B u`, `r = -(x' Q x + u' R u)`, policy `u = -K x`. With `g = gamma (1 - d)` for a constant probability `d`
of termination, the value is `-x' P x`, `P = Q + K' R K + g (A - B K)' P (A - B K)`, and with
`E = (R + g B' P B) K - g B' P A` and `S_t = mean x_t x_t'` the gradient of the mean value with respect to `K` is
`-2 E sum_t g^t S_t`: over all `t` if the terminal value moves with `K`, over `t <= H` if the critic is held fixed.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_mbrl.imagination import imagine
from lit_mbrl.losses import value_gradient_loss
from lit_mbrl.models import Step
from lit_mbrl.returns import survival, value_expansion

GAMMA = 0.95
A = torch.tensor([[1.0, 0.2], [-0.1, 0.95]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
Q = torch.tensor([[1.0, 0.1], [0.1, 0.5]], dtype=torch.float64)
R = torch.tensor([[0.2]], dtype=torch.float64)
GAIN = torch.tensor([[0.3, 0.6]], dtype=torch.float64)  # stabilises, and is not optimal


def quadratic(x: Tensor, matrix: Tensor) -> Tensor:
    return ((x @ matrix) * x).sum(-1, keepdim=True)


class LQR:
    """A `WorldModel` whose state is the observation; every step terminates with the same probability."""

    def __init__(self, termination: float) -> None:
        self.logit = math.log(termination / (1 - termination)) if termination > 0 else -math.inf

    def initial(self, observation: Tensor) -> Tensor:
        return observation

    def step(self, state: Tensor, action: Tensor) -> Step[Tensor]:
        reward = -quadratic(state, Q) - quadratic(action, R)
        return Step(state @ A.T + action @ B.T, reward, torch.full_like(state[:, :1], self.logit))

    def termination_logit(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.full_like(state[:, :1], self.logit)

    def observation(self, state: Tensor) -> Tensor:
        return state


def lyapunov(gain: Tensor, g: float) -> Tensor:
    """`P` of the policy, in closed form and differentiable in the gain."""
    closed = A - B @ gain
    cost = Q + gain.T @ R @ gain
    system = torch.eye(4, dtype=torch.float64) - g * torch.kron(closed.T, closed.T)
    return torch.linalg.solve(system, cost.reshape(-1)).reshape(2, 2)


def riccati(g: float) -> Tensor:
    """The optimal gain, by iterating the discounted Riccati equation to its fixed point."""
    p = Q.clone()
    for _ in range(400):
        gain = torch.linalg.solve(R + g * B.T @ p @ B, g * B.T @ p @ A)
        p = Q + gain.T @ R @ gain + g * (A - B @ gain).T @ p @ (A - B @ gain)
    return gain


def expansion(gain: Tensor, critic: Tensor, start: Tensor, horizon: int, termination: float) -> Tensor:
    """The mean H-step expansion whose terminal value is `Q(x, u)` of the quadratic value `-x' critic x`."""
    model = LQR(termination)

    def policy(observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return -observation @ gain.T, torch.zeros_like(observation[:, :1])

    imagined = imagine(policy, model, start, start.new_zeros(start.shape[0], horizon + 1, 1))
    x, u = imagined.observation[:, -1], imagined.action[:, -1]
    g = GAMMA * (1 - termination)
    following, reward, _ = model.step(x, u)
    q = reward - g * quadratic(following, critic)
    alive = survival(imagined.termination_prob)
    value = value_expansion(imagined.reward, imagined.log_prob, q, 0.0, GAMMA, alive)
    return -value_gradient_loss(value).mean()


def policy_gradient(gain: Tensor, start: Tensor, g: float, last: int | None) -> Tensor:
    """The analytic gradient, summed up to step `last` (None: to infinity, by the discounted Lyapunov equation)."""
    p = lyapunov(gain, g)
    direction = (R + g * B.T @ p @ B) @ gain - g * B.T @ p @ A
    closed = A - B @ gain
    first = start.T @ start / start.shape[0]
    if last is None:
        system = torch.eye(4, dtype=torch.float64) - g * torch.kron(closed, closed)
        visits = torch.linalg.solve(system, first.reshape(-1)).reshape(2, 2)
    else:
        powers = [torch.linalg.matrix_power(closed, t) for t in range(last + 1)]
        visits = sum((g**t * c @ first @ c.T for t, c in enumerate(powers)), torch.zeros_like(first))
    return -2.0 * direction @ visits


@pytest.fixture
def start() -> Tensor:
    return torch.randn(7, 2, dtype=torch.float64)


HORIZONS = pytest.mark.parametrize("horizon", range(6))
TERMINATIONS = pytest.mark.parametrize("termination", [0.0, 0.2])


@HORIZONS
@TERMINATIONS
def test_gradient_with_an_exact_critic_held_fixed(horizon: int, termination: float, start: Tensor) -> None:
    g = GAMMA * (1 - termination)
    gain = GAIN.clone().requires_grad_()
    value = expansion(gain, lyapunov(GAIN, g), start, horizon, termination)
    assert value.item() == pytest.approx(-quadratic(start, lyapunov(GAIN, g)).mean().item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, gain)
    expected = policy_gradient(GAIN, start, g, horizon)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=0)


@HORIZONS
@TERMINATIONS
def test_gradient_with_a_critic_that_moves_with_the_policy(horizon: int, termination: float, start: Tensor) -> None:
    g = GAMMA * (1 - termination)
    gain = GAIN.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expansion(gain, lyapunov(gain, g), start, horizon, termination), gain)
    torch.testing.assert_close(gradient, policy_gradient(GAIN, start, g, None), rtol=1e-10, atol=0)


@HORIZONS
@TERMINATIONS
def test_gradient_vanishes_at_the_optimum(horizon: int, termination: float, start: Tensor) -> None:
    g = GAMMA * (1 - termination)
    best = riccati(g)
    assert (best - GAIN).abs().max() > 0.05
    gain = best.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expansion(gain, lyapunov(best, g), start, horizon, termination), gain)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-11)


def test_one_step_of_ascent_raises_the_value(start: Tensor) -> None:
    gain = GAIN.clone().requires_grad_()
    value = expansion(gain, lyapunov(GAIN, GAMMA), start, 3, 0.0)
    (gradient,) = torch.autograd.grad(value, gain)
    better = GAIN + 1e-3 * gradient
    assert quadratic(start, lyapunov(better, GAMMA)).mean() < quadratic(start, lyapunov(GAIN, GAMMA)).mean()
