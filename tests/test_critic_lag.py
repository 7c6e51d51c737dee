"""The independent SAC of benchmarks/critic_lag.py: its Pendulum is Gymnasium's, its densities and updates are right."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch

from benchmarks.critic_lag import Agents, Options, observe, pendulum


def agents(**options: float) -> Agents:
    return Agents(2, Options(batch=8, hidden=8, **options), torch.Generator().manual_seed(0))


def test_pendulum_is_gymnasiums() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    angle, speed = (torch.tensor(float(x), dtype=torch.float64) for x in env.state)
    for step in range(300):
        action = np.sin(step) * np.ones(1)  # in [-1, 1], both signs
        observation, reward, *_ = env.step(2.0 * action)
        angle, speed, own = pendulum(angle, speed, torch.tensor(action[0]))
        np.testing.assert_allclose(observe(angle, speed), observation, atol=1e-5)
        np.testing.assert_allclose(own, reward, atol=1e-9)


def test_log_probabilities_are_those_of_a_tanh_gaussian() -> None:
    own = agents()
    x, noise = torch.randn(2, 8, 3), torch.randn(2, 8, 1)
    action, log_prob = own.sample(x, noise)
    unit = own.sample(x, torch.zeros_like(noise))[0].atanh()
    std = (own.sample(x, torch.ones_like(noise))[0].atanh() - unit).detach()
    base = torch.distributions.Normal(unit, std)
    expected = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform()).log_prob(action)
    torch.testing.assert_close(log_prob, expected, atol=1e-3, rtol=1e-3)


def test_an_update_moves_each_seed_by_its_own_batch_alone() -> None:
    first, second = agents(horizon=1, tau=0.5), agents(horizon=1, tau=0.5)
    names = ("angle", "speed", "action", "reward", "next_angle", "next_speed")
    batch = {name: torch.rand(2, 8) for name in names}
    first.update(batch)
    second.update({name: torch.stack([value[0], value[1] + 1.0]) for name, value in batch.items()})
    pairs = list(zip(first.critic_weights + first.actor, second.critic_weights + second.actor, strict=True))
    assert all(torch.equal(mine[0], other[0]) for mine, other in pairs)
    assert not all(torch.equal(mine[1], other[1]) for mine, other in pairs)
