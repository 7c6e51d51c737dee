"""The discounted distribution of future states: weights, a linear-Gaussian chain, and what a density network learns."""

from __future__ import annotations

import torch

from lit_mbrl.losses import expectation_over_future, future_weights
from lit_mbrl.models import MixtureDensityNetwork

GAMMA, RHO, SIGMA = 0.8, 0.9, 0.5


def chain(start: torch.Tensor, steps: int) -> torch.Tensor:
    """`s' = RHO s + SIGMA e`: states `[N, steps, 1]` after `start` `[N, 1]`."""
    states = []
    for _ in range(steps):
        start = RHO * start + SIGMA * torch.randn_like(start)
        states.append(start)
    return torch.stack(states, 1)


def analytic(start: float) -> tuple[float, float]:
    """Mean and variance of `q(. | s_0)`: geometric steps of the chain."""
    k = torch.arange(1, 400, dtype=torch.float64)
    weight = (1 - GAMMA) * GAMMA ** (k - 1)
    means = RHO**k * start
    variances = SIGMA**2 * (1 - RHO ** (2 * k)) / (1 - RHO**2)
    mean = (weight * means).sum()
    return float(mean), float((weight * (variances + means.square())).sum() - mean.square())


def test_weights_add_up_to_one() -> None:
    ends = torch.rand(7, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(future_weights(ends, 0.9).sum(1), torch.ones(7, 1, dtype=torch.float64))


def test_weights_without_terminations_are_geometric() -> None:
    weight = future_weights(torch.zeros(1, 4, 1, dtype=torch.float64), 0.9).flatten()
    expected = [0.1, 0.1 * 0.9, 0.1 * 0.81, 0.1 * 0.729, 0.6561]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64))


def test_a_state_that_ends_the_episode_takes_all_that_is_left() -> None:
    weight = future_weights(torch.tensor([[[0.0], [1.0], [0.3]]]), 0.9).flatten()
    torch.testing.assert_close(weight, torch.tensor([0.1, 0.9, 0.0, 0.0]))


def test_weights_are_the_probabilities_of_where_a_simulation_stops() -> None:
    """One starts at step 1, stays in a terminal state for ever, and stops where a coin shows heads (1 - gamma)."""
    ends, runs = torch.tensor([0.1, 0.4, 0.2]), 100_000
    where = torch.full((runs,), -1)
    at, over = torch.zeros(runs, dtype=torch.long), torch.zeros(runs, dtype=torch.bool)
    for _ in range(200):
        inside = at < 3
        over |= inside & (torch.rand(runs) < ends[at.clamp(max=2)]) & ~over & (where < 0)
        stop = (torch.rand(runs) < 1 - GAMMA) | over
        where = torch.where((where < 0) & (stop | ~inside), at.clamp(max=3), where)
        at = torch.where(over, at, at + 1)
    frequency = torch.bincount(where, minlength=4) / runs
    weight = future_weights(ends.view(1, 3, 1), GAMMA).flatten()
    assert (frequency - weight).abs().max() < 5 * (0.25 / runs) ** 0.5


def test_estimate_has_the_moments_of_the_discounted_distribution() -> None:
    start, n, runs = 2.0, 5, 200_000
    states = chain(torch.full((runs, 1), start), n)
    # P is exact: a geometric number of further steps
    steps = torch.distributions.Geometric(1 - GAMMA).sample((runs, 1)) + 1
    decay = RHO**steps
    spread = SIGMA * ((1 - decay.square()) / (1 - RHO**2)).sqrt()
    tail = (decay * states[:, -1] + spread * torch.randn(runs, 1)).unsqueeze(1)
    weight = future_weights(torch.zeros(runs, n, 1), GAMMA)
    first = expectation_over_future(weight, states, tail, torch.ones(runs, 1, 1))
    second = expectation_over_future(weight, states.square(), tail.square(), torch.ones(runs, 1, 1))
    mean, variance = analytic(start)
    for samples, expected in ((first, mean), (second, variance + mean**2)):
        assert abs(samples.mean() - expected) < 5 * samples.std() / runs**0.5


def test_a_density_network_learns_the_discounted_distribution_from_short_rollouts() -> None:
    """Bootstrapped on itself from three steps, it gets the moments of infinitely many. Its prior error is above 1."""
    net = MixtureDensityNetwork(1, heads=3, hidden=(32, 32))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 500)
        start = 4.0 * torch.rand(256, 1) - 2.0
        states = chain(start, 3)
        with torch.no_grad():
            tail = net(states[:, -1]).sample(torch.rand(256, 1), torch.randn(256, 1)).unsqueeze(1)
        log_prob = net(start).log_prob(torch.cat([states, tail], 1))
        loss = -(future_weights(torch.zeros(256, 3, 1), GAMMA) * log_prob).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for start in (-1.5, 0.0, 1.5):
        mixture = net(torch.tensor([[start]]))
        weight, means, stds = mixture.log_weight.exp().flatten(), mixture.mean.flatten(), mixture.std.flatten()
        found = (weight * means).sum()
        variance = (weight * (stds.square() + means.square())).sum() - found.square()
        mean, expected = analytic(start)
        assert abs(found - mean) < 0.2, start
        assert 0.75 < variance / expected < 1.3, start
