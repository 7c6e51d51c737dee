"""Rewards are divided by the standard deviation of their own discounted sum, across rollouts and resumes."""

from __future__ import annotations

import pytest
import torch

from lit_mbrl.networks import RewardNormalizer


def sums_of(rewards: torch.Tensor, done: torch.Tensor, gamma: float) -> torch.Tensor:
    """`G_t` of every frame of one environment, by a loop."""
    found, total = [], 0.0
    for reward, end in zip(rewards.tolist(), done.tolist(), strict=True):
        total = gamma * total + reward
        found.append(total)
        total = 0.0 if end else total
    return torch.tensor(found, dtype=torch.float64)


def test_scale_is_the_deviation_of_all_sums_so_far_and_sums_cross_rollouts() -> None:
    scale = RewardNormalizer(0.9)
    reward, done = 3 * torch.randn(2, 12, 1) + 1, torch.rand(2, 12, 1) < 0.2
    first = scale(reward[:, :5], done[:, :5])
    second = scale(reward[:, 5:], done[:, 5:])
    sums = torch.stack([sums_of(reward[n, :, 0], done[n, :, 0], 0.9) for n in range(2)])
    torch.testing.assert_close(first, (reward[:, :5] / sums[:, :5].std(correction=0)).float())
    torch.testing.assert_close(second, (reward[:, 5:] / sums.std(correction=0)).float())


def test_gamma_is_the_sum_s() -> None:
    """A constant reward of 1 sums up to 1 / (1 - gamma): the larger gamma, the smaller the scaled reward."""
    reward, done = torch.ones(1, 2000, 1), torch.zeros(1, 2000, 1, dtype=torch.bool)
    for gamma in (0.5, 0.99):
        sums = (1 - gamma ** torch.arange(1.0, 2001.0)) / (1 - gamma)
        assert RewardNormalizer(gamma)(reward, done)[0, 0].item() == pytest.approx(
            min(10.0, 1 / sums.std(correction=0).item()), rel=1e-3
        )


def test_scaled_rewards_are_cut_and_signs_stay() -> None:
    reward = torch.tensor([[[0.0], [0.0], [0.0], [-1e6]] + [[0.0]] * 996])
    found = RewardNormalizer(0.0, clip=10.0)(reward, torch.zeros_like(reward, dtype=torch.bool))
    assert found.min().item() == -10.0 and found[0, 0].item() == 0.0


def test_state_and_restart() -> None:
    reward, done = torch.randn(2, 6, 1), torch.zeros(2, 6, 1, dtype=torch.bool)
    whole, first, second = (RewardNormalizer(0.9) for _ in range(3))
    whole(reward, done)
    first(reward, done)
    second.load_state_dict(first.state_dict())
    assert torch.equal(whole(reward, done), second(reward, done))
    second.restart([1])
    assert second.running[1] == 0.0 and second.running[0] == whole.running[0] != 0.0


def test_statistics_stay_in_float64() -> None:
    scale = RewardNormalizer(0.9).half()
    assert {buffer.dtype for buffer in scale.buffers()} == {torch.float64}
