"""Values of goals and horizons against plain loops."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.autograd import gradcheck

from lit_mbrl.losses import goal_score, goal_value, tdm_target

B, G = 9, 3


def test_targets_equal_a_plain_loop() -> None:
    achieved, goal, next_q = torch.randn(3, B, G).unbind()
    weight, tau = torch.tensor([1.0, 0.5, 2.0]), torch.arange(B).unsqueeze(1) % 3
    target = tdm_target(achieved, goal, weight, tau == 0, next_q)
    for b in range(B):
        for i in range(G):
            far = weight[i].item() * abs(achieved[b, i].item() - goal[b, i].item())
            expected = -far if tau[b].item() == 0 else next_q[b, i].item()
            assert target[b, i].item() == pytest.approx(expected, rel=1e-6)


def test_targets_have_no_gradient() -> None:
    achieved, goal, next_q = (torch.randn(B, G, requires_grad=True) for _ in range(3))
    target = tdm_target(achieved, goal, torch.ones(G), torch.rand(B, 1) < 0.5, next_q)
    assert not target.requires_grad


def test_the_vector_sums_to_the_scalar_value_of_its_norm() -> None:
    reached, goal, weight = torch.randn(2, B, G), torch.randn(B, G), torch.tensor([1.0, 0.5, 2.0])
    q = goal_value(reached, goal, weight)
    assert q.shape == (2, B, G) and (q <= 0).all()
    difference = weight * (reached - goal)
    torch.testing.assert_close(goal_score(q, 1)[..., 0], -difference.abs().sum(-1))
    torch.testing.assert_close(goal_score(q, 2)[..., 0], -difference.square().sum(-1).sqrt())


def test_a_value_is_zero_where_the_goal_is_reached_and_nowhere_else() -> None:
    goal = torch.randn(B, G)
    assert (goal_value(goal, goal, torch.ones(G)) == 0).all()
    assert (goal_value(goal + 0.1, goal, torch.ones(G)) < 0).all()


def test_gradients() -> None:
    torch.manual_seed(0)
    reached, goal = (torch.randn(B, G, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(goal_value, (reached, goal, weight))
    for norm in (1, 2):
        assert gradcheck(lambda f, g, w, norm=norm: goal_score(goal_value(f, g, w), norm), (reached, goal, weight))


def test_wrong_shapes_are_caught() -> None:
    goal, weight, over = torch.randn(B, G), torch.ones(G), torch.zeros(B, 1, dtype=torch.bool)
    for call in (
        lambda: goal_value(goal, goal[:, :1], weight),
        lambda: tdm_target(goal, goal, weight, over[:, 0], goal),
        lambda: tdm_target(goal, goal, weight, over, goal[:, :1]),
    ):
        with pytest.raises(TypeCheckError):
            call()
