"""Draws in proportion to priorities, and their weights."""

from __future__ import annotations

import pytest
import torch
from torchrl.data.replay_buffers.samplers import PrioritizedSampler

from lit_mbrl.data.buffers.priorities import Priorities, _Slots
from lit_mbrl.losses import importance_weight, normalized_by_max


def test_draws_follow_equation_3() -> None:
    priorities = Priorities(6)
    priority, alpha = [0.5, 2.0, 0.1, 1.0], 0.7
    priorities.set(torch.arange(4), torch.tensor(priority) ** alpha)
    slots, probability = priorities.draw(80_000, 4)
    total = sum(p**alpha for p in priority)
    share = torch.bincount(slots, minlength=4) / 80_000
    for i, p in enumerate(priority):
        expected = p**alpha / total
        # Standard deviation of the share: at most 0.0018; one of four strays by five of these once in 4 10^5.
        assert abs(float(share[i]) - expected) < 0.009
        assert probability[slots == i].unique().item() == pytest.approx(expected)


def test_weights_are_those_of_torchrl_s_sampler() -> None:
    alpha, beta, priority = 0.6, 0.4, torch.rand(50) + 0.01
    reference = PrioritizedSampler(50, alpha=alpha, beta=beta, eps=0.0)
    reference.update_priority(torch.arange(50), priority)
    slots, info = reference.sample(_Slots(50), 30)
    mass = priority**alpha
    ours = normalized_by_max(importance_weight(mass[slots] / mass.sum(), 50, beta))
    torch.testing.assert_close(ours, info["priority_weight"] / info["priority_weight"].max())


def test_of_a_state_drawn_twice_the_last_action_counts() -> None:
    priorities = Priorities(4)
    priorities.set(torch.tensor([2, 0, 2, 1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert priorities.of(torch.arange(4)).tolist() == [2.0, 4.0, 5.0, 0.0]
