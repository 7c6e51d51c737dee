"""Time-varying dynamics of an episode: fits of each mode, what is predicted, and which episodes belong together."""

from __future__ import annotations

import pytest
import torch

from lit_mbrl.models.time_varying import TimeVaryingDynamics, group_starts


def systems(modes: int, steps: int, reward: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, B and c `[modes, steps, ...]` of three numbers, and a fourth of the reward, and of two of an action."""
    out = 3 + reward
    return 0.4 * torch.randn(modes, steps, out, 3), torch.randn(modes, steps, out, 2), torch.randn(modes, steps, out)


@pytest.mark.parametrize("reward", [False, True])
def test_each_mode_s_linear_system_is_recovered_from_episodes_of_unequal_lengths(reward: bool) -> None:
    torch.manual_seed(0)
    a, b, c = systems(2, 6, reward)
    mode, lengths = torch.arange(24) % 2, torch.tensor([6, 4] * 12)  # the second's episodes are shorter
    states, actions = torch.randn(24, 6, 3), torch.randn(24, 6, 2)
    following = torch.einsum("etij,etj->eti", a[mode], states) + torch.einsum("etij,etj->eti", b[mode], actions)
    following = following + c[mode]
    following[mode == 1, 4:] = torch.nan  # behind their ends nothing is read
    dynamics = TimeVaryingDynamics(8, 3, 2, modes=2, reward=reward)
    residual = dynamics.fit(states, actions, following, lengths, mode, window=0, ridge=1e-10)
    assert float(residual) < 1e-10
    for m, last in ((0, 6), (1, 4)):
        for found, true in ((dynamics.state, a), (dynamics.action, b), (dynamics.offset, c)):
            torch.testing.assert_close(found[m, :last], true[m, :last], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[m, last:], found[m, last - 1 : last].expand_as(found[m, last:]))

    step = torch.tensor([0, 3, 1, 3])
    found, paid = dynamics.step(mode[:4], step, states[:4, 0], actions[:4, 0], torch.randn(4, 3 + reward))
    by_hand = torch.stack(
        [
            a[m, t] @ x + b[m, t] @ u + c[m, t]
            for m, t, x, u in zip(mode, step, states[:, 0], actions[:, 0], strict=False)
        ]
    )
    torch.testing.assert_close(found, by_hand[:, :3], rtol=1e-4, atol=1e-3)
    assert (paid is None) == (not reward)
    if paid is not None:
        torch.testing.assert_close(paid, by_hand[:, 3:], rtol=1e-4, atol=1e-3)


def test_the_noise_has_the_covariance_of_the_residual() -> None:
    torch.manual_seed(0)
    true = torch.tensor([[1.0, 0.0], [0.7, 0.2]])
    states, actions = torch.randn(20_000, 1, 2), torch.randn(20_000, 1, 1)
    following = states + torch.randn(20_000, 1, 2) @ true.T
    dynamics = TimeVaryingDynamics(1, 2, 1)
    dynamics.fit(states, actions, following, torch.ones(20_000), torch.zeros(20_000, dtype=torch.long), 0, 1e-6)
    torch.testing.assert_close(dynamics.noise[0, 0] @ dynamics.noise[0, 0].T, true @ true.T, rtol=0.05, atol=0.02)
    many, zero = 50_000, torch.zeros(1)
    at = torch.zeros(many, dtype=torch.long)
    drawn, _ = dynamics.step(at, at, zero.expand(many, 2), zero.expand(many, 1), torch.randn(many, 2))
    torch.testing.assert_close(drawn.T.cov(), true @ true.T, rtol=0.06, atol=0.03)


def test_groups_are_those_of_near_starts() -> None:
    centre = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centre.unsqueeze(1) + 0.1 * torch.randn(3, 4, 2)).transpose(0, 1).flatten(0, 1)
    group = group_starts(points, 3).view(4, 3)
    assert sorted(group[0].tolist()) == [0, 1, 2] and (group == group[0]).all()


def test_there_are_as_many_groups_as_asked_for_or_as_points() -> None:
    points = torch.randn(5, 3)
    assert [len(group_starts(points, groups).unique()) for groups in (1, 2, 5, 9)] == [1, 2, 5, 5]
    assert sorted(group_starts(torch.zeros(4, 3), 4).tolist()) == [0, 1, 2, 3]  # equal points, too


def test_a_strong_ridge_leaves_the_linear_model_of_all_steps() -> None:
    torch.manual_seed(0)
    states, actions, following = (
        torch.randn(6, 5, 2) * torch.tensor([1.0, 50.0]),
        torch.randn(6, 5, 1),
        torch.randn(6, 5, 2),
    )
    dynamics, mode = TimeVaryingDynamics(5, 2, 1, modes=3), torch.arange(6) % 3
    dynamics.fit(states, actions, following, torch.full((6,), 5), mode, window=1, ridge=1e9)
    rows = torch.cat([states, actions, torch.ones(6, 5, 1)], -1).flatten(0, 1)
    weights = torch.linalg.lstsq(rows, following.flatten(0, 1)).solution.T
    torch.testing.assert_close(dynamics.state, weights[:, :2].expand(3, 5, 2, 2), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(dynamics.action, weights[:, 2:3].expand(3, 5, 2, 1), rtol=1e-3, atol=1e-4)
    assert torch.equal(dynamics.range, torch.stack([states.amin((0, 1)), states.amax((0, 1))]))


def test_the_fit_does_not_depend_on_the_units() -> None:
    torch.manual_seed(0)
    unit = torch.tensor([1e-2, 30.0])
    states, actions, following = torch.randn(6, 5, 2), torch.randn(6, 5, 1), torch.randn(6, 5, 2)
    fits = []
    for scale in (torch.ones(2), unit):
        dynamics = TimeVaryingDynamics(5, 2, 1)
        dynamics.fit(states * scale, actions, following, torch.full((6,), 5), torch.zeros(6, dtype=torch.long), 0, 0.1)
        fits.append(dynamics)
    torch.testing.assert_close(fits[0].state, fits[1].state * unit, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fits[0].offset, fits[1].offset, rtol=1e-3, atol=1e-4)
