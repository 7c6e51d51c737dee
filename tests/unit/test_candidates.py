"""STEVE's candidate targets and their weights against plain loops over all combinations, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from lit_mbrl.returns import candidate_moments, inverse_variance_weights

B, GAMMA = 5, 0.9


def draw(transitions: int, rewards: int, values: int, horizon: int) -> tuple[Tensor, ...]:
    """Reward, termination, imagined rewards, values and termination probabilities of random rollouts."""
    double = {"dtype": torch.float64}
    return (
        torch.randn(B, 1, **double),
        torch.rand(B, 1) < 0.4,
        torch.randn(transitions, B, horizon, rewards, **double),
        torch.randn(transitions, B, horizon + 1, values, **double) * 10,
        torch.rand(transitions, B, horizon, 1, **double),
    )


def combinations(b: int, i: int, inputs: tuple[Tensor, ...]) -> Tensor:
    """All candidates of horizon `i` for the transition `b`, one by one."""
    reward, terminated, imagined, value, ends = inputs
    found = []
    for m, n, k in product(range(imagined.shape[0]), range(imagined.shape[3]), range(value.shape[3])):
        alive, total = 1.0 - float(terminated[b]), reward[b].item()
        for t in range(i):
            total += GAMMA ** (t + 1) * alive * imagined[m, b, t, n].item()
            alive *= 1.0 - ends[m, b, t].item()
        found.append(total + GAMMA ** (i + 1) * alive * value[m, b, i, k].item())
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("members", [(1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4), (3, 2, 4)])
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_moments_and_target_are_those_of_all_combinations(members: tuple[int, int, int], horizon: int) -> None:
    inputs = draw(*members, horizon)
    mean, variance = candidate_moments(*inputs, GAMMA)
    weight = inverse_variance_weights(variance)
    for b in range(B):
        candidates = [combinations(b, i, inputs) for i in range(horizon + 1)]
        variances = [float(((c - c.mean()) ** 2).mean()) for c in candidates]
        confidences = [1.0 / (v + 1e-8) for v in variances]
        target = sum(w * float(c.mean()) for w, c in zip(confidences, candidates, strict=True)) / sum(confidences)
        for i in range(horizon + 1):
            assert mean[b, i].item() == pytest.approx(float(candidates[i].mean()), abs=1e-9)
            assert variance[b, i].item() == pytest.approx(variances[i], abs=1e-9)
            assert weight[b, i].item() == pytest.approx(confidences[i] / sum(confidences), abs=1e-9)
        assert (weight * mean).sum(1)[b].item() == pytest.approx(target, abs=1e-9)


def test_the_target_is_the_least_uncertain_mix_of_independent_candidates() -> None:
    variance = torch.rand(B, 4, 1, dtype=torch.float64) + 0.1
    weight = inverse_variance_weights(variance, epsilon=0.0)
    torch.testing.assert_close(weight.sum(1), torch.ones(B, 1, dtype=torch.float64))
    least = (weight.square() * variance).sum(1)
    torch.testing.assert_close(least, 1.0 / (1.0 / variance).sum(1))
    for _ in range(20):
        other = torch.rand(B, 4, 1, dtype=torch.float64)
        other = other / other.sum(1, keepdim=True)
        assert ((other.square() * variance).sum(1) >= least).all()


def test_candidates_that_all_agree_weigh_the_same() -> None:
    torch.testing.assert_close(inverse_variance_weights(torch.zeros(B, 4, 1)), torch.full((B, 4, 1), 0.25))


def test_moments_and_weights_are_constants() -> None:
    reward, terminated, *others = draw(2, 2, 2, 2)
    inputs = (reward.requires_grad_(), terminated, *(other.requires_grad_() for other in others))
    mean, variance = candidate_moments(*inputs, GAMMA)
    assert not mean.requires_grad and not variance.requires_grad
    assert not inverse_variance_weights(torch.rand(B, 2, 1, requires_grad=True)).requires_grad
