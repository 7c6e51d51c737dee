"""The test suite enforces the annotated shapes: `(B,)` against `(B, 1)` must not broadcast silently."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from lit_mbrl import losses, returns

COLUMN, FLAT = torch.randn(4, 1), torch.randn(4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.q_loss(torch.randn(2, 4, 1), FLAT),
        lambda: losses.soft_value(torch.randn(2, 4, 1), FLAT, 0.1),
        lambda: losses.soft_policy_loss(torch.randn(2, 4), COLUMN, 0.1),
        lambda: losses.temperature_loss(torch.tensor(0.1), FLAT, -1.0),
        lambda: losses.td_target(COLUMN, torch.zeros(4, dtype=torch.bool), COLUMN, 0.9),
        lambda: losses.td_target(COLUMN, torch.zeros(4, 1), COLUMN, 0.9),  # a flag is a bool
        lambda: losses.dpg_loss(FLAT),
        lambda: losses.value_gradient_loss(FLAT),
        lambda: losses.reward_loss(COLUMN, FLAT),
        lambda: losses.termination_loss(COLUMN, FLAT > 0),
        lambda: losses.dynamics_loss(torch.randn(4, 3, 2), torch.randn(4, 2, 2)),
        lambda: returns.survival(torch.rand(4, 3)),
        lambda: returns.value_expansion(
            torch.randn(4, 3, 1), torch.randn(4, 3, 1), COLUMN, 0.1, 0.9, torch.ones(4, 4, 1)
        ),
    ],
)
def test_wrong_shapes_are_caught(call) -> None:
    with pytest.raises(TypeCheckError):
        call()
