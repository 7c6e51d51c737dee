"""The SAC of benchmarks/studies/critic_lag.py: its Pendulum is Gymnasium's, its densities and updates are right."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch

from benchmarks.studies.critic_lag import Agents, Options, observe, pendulum


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


def test_value_expansion_sums_the_rewards_along_the_imagined_path() -> None:
    own, alpha = agents(critic_horizon=2, normalize=False), torch.full((2, 1, 1), 0.3)
    batch = {name: torch.rand(2, 8) for name in ("angle", "speed", "action", "reward", "next_angle", "next_speed")}
    x, following = observe(batch["angle"], batch["speed"]), observe(batch["next_angle"], batch["next_speed"])
    state = own.generator.get_state()
    inputs, targets = own.critic_targets(batch, x, following, alpha)
    own.generator.set_state(state)
    path, angle, speed = [], batch["next_angle"], batch["next_speed"]
    for _ in range(3):
        observation = observe(angle, speed)
        action, log_prob = own.sample(observation, own.normal(2, 8, 1))
        angle, speed, reward = pendulum(angle, speed, action[..., 0])
        path.append((observation, action, reward.unsqueeze(-1), -alpha * log_prob))
    (x0, u0, r0, b0), (x1, u1, r1, b1), (x2, u2, _, b2) = path
    last = own.q(own.targets, x2, u2).amin(-1, keepdim=True)
    g = 0.99
    expected = [
        batch["reward"].unsqueeze(-1) + g * b0 + g * r0 + g**2 * b1 + g**2 * r1 + g**3 * (b2 + last),
        r0 + g * b1 + g * r1 + g**2 * (b2 + last),
        r1 + g * (b2 + last),
    ]
    for found, wanted in zip(targets, expected, strict=True):
        torch.testing.assert_close(found, wanted.detach())
    for (observation, action), wanted in zip(
        inputs, ((x, batch["action"].unsqueeze(-1)), (x0, u0), (x1, u1)), strict=True
    ):
        assert torch.equal(observation, wanted[0])
        assert torch.equal(action, wanted[1])
