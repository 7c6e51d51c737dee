"""The advantages that contain entropy: values by explicit sums, and which way gradients go."""

from __future__ import annotations

import torch

from lit_mbrl.losses import max_entropy_advantage
from lit_mbrl.returns import discounted_sums, generalized_advantages

GAMMA, LMBDA, BETA = 0.9, 0.8, 0.3


def test_one_step_is_the_first_step_with_entropy_and_the_rest_without() -> None:
    """Section 4: `r + beta H + gamma V' - V + gamma lambda A_{t+1}(0)`."""
    reward, value, next_value = torch.randn(3, 2, 6, 1, dtype=torch.float64).unbind()
    entropy = torch.rand(2, 6, 1, dtype=torch.float64)
    terminated = torch.zeros(2, 6, 1, dtype=torch.bool)
    terminated[0, 2] = True
    advantage = generalized_advantages(reward, value, next_value, terminated, terminated, GAMMA, LMBDA)
    found = max_entropy_advantage(advantage.flatten(0, 1), entropy.flatten(0, 1), BETA).view(2, 6, 1)
    for n in range(2):
        for t in range(6):
            stays = 0.0 if terminated[n, t] else 1.0
            first = reward[n, t] + BETA * entropy[n, t] + GAMMA * stays * next_value[n, t] - value[n, t]
            rest = GAMMA * LMBDA * stays * advantage[n, t + 1] if t < 5 else 0.0
            torch.testing.assert_close(found[n, t], first + rest)


def test_in_full_it_is_the_advantage_of_rewards_with_entropy() -> None:
    """Section 3: the same sum as with `r + beta H` in the place of `r`, truncations and terminations alike."""
    reward, value, next_value = torch.randn(3, 3, 9, 1, dtype=torch.float64).unbind()
    entropy = torch.rand(3, 9, 1, dtype=torch.float64)
    terminated = torch.rand(3, 9, 1) < 0.2
    done = terminated | (torch.rand(3, 9, 1) < 0.2)
    advantage = generalized_advantages(reward, value, next_value, terminated, done, GAMMA, LMBDA)
    sums = discounted_sums(entropy, done, GAMMA * LMBDA)
    found = max_entropy_advantage(advantage.flatten(0, 1), sums.flatten(0, 1), BETA).view(3, 9, 1)
    paid = generalized_advantages(reward + BETA * entropy, value, next_value, terminated, done, GAMMA, LMBDA)
    torch.testing.assert_close(found, paid)


def test_the_gradient_is_beta_in_the_entropy_and_nothing_else() -> None:
    advantage, entropy = torch.randn(2, 4, 1)
    advantage.requires_grad_(True)
    entropy.requires_grad_(True)
    beta = torch.tensor(BETA, requires_grad=True)
    max_entropy_advantage(advantage, entropy, beta).sum().backward()
    assert advantage.grad is None and beta.grad is None
    torch.testing.assert_close(entropy.grad, torch.full((4, 1), BETA))
