"""Searching for actions with a temporal difference model: with known dynamics the right action is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_mbrl.algorithms import TDM
from lit_mbrl.envs import EnvConfig, describe
from lit_mbrl.envs.tasks.rewards import goal_distance, goal_rule
from lit_mbrl.planners import CEM
from lit_mbrl.utils.errors import OptionError

SPEC = describe(EnvConfig("goals/PointMass"))
# A force of 1 moves a mass by 0.05, a hundredth of how far goals may be apart: that asks for a fine search.
FINE = CEM(horizon=1, num_candidates=500, num_elites=30, iterations=12)
PLACE, SPEED = slice(4, 6), slice(6, 8)


class Dynamics(nn.Module):
    """Predicts the position of the point mass after one step, exactly: the model of a horizon of one."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias  # of the goal, of which a model may learn to be drawn to it

    def first(self, seen: Tensor, action: Tensor) -> Tensor:
        exact = seen[..., PLACE] + 0.75 * seen[..., SPEED] + 0.05 * action
        return exact + self.bias * seen[..., SPEC.parts["desired_goal"]]


def make_planner(acting: str, **options: Any) -> TDM:
    torch.manual_seed(0)
    algorithm = TDM(hidden_sizes=[8], acting=acting, **({"planner": FINE} | options))
    algorithm.configure(SPEC)
    algorithm.critic = Dynamics()
    algorithm.goal_low.fill_(-2.0)
    algorithm.goal_high.fill_(2.0)
    return algorithm


def make_states(goals: Tensor) -> Tensor:
    """Observations of masses at 0.1 whose velocity is [0.04, 0], with these goals `[N, 2]`."""
    observation = torch.zeros(len(goals), SPEC.observation_dim)
    observation[:, SPEC.parts["achieved_goal"]] = observation[:, PLACE] = 0.1
    observation[:, SPEED] = torch.tensor([0.04, 0.0])
    observation[:, SPEC.parts["desired_goal"]] = goals
    return observation


REACHED = torch.tensor([0.1 + 0.03, 0.1])  # without a force
WANTED = torch.tensor([[0.6, -0.4], [-0.8, 0.0], [0.0, 0.9]])


@pytest.mark.parametrize("acting", ["mpc_direct", "mpc_constrained"])
def test_the_action_that_leads_to_a_near_goal_is_found(acting: str) -> None:
    algorithm = make_planner(acting)
    action = algorithm.choose(make_states(REACHED + 0.05 * WANTED), torch.zeros(3, 1))
    torch.testing.assert_close(action, WANTED, atol=0.1, rtol=0)


@pytest.mark.parametrize("acting", ["mpc_direct", "mpc_constrained"])
def test_a_far_goal_is_gone_for_with_all_force(acting: str) -> None:
    goals = torch.tensor([[1.8, 1.8], [-1.8, 1.8], [-1.8, -1.8]])
    action = make_planner(acting).choose(make_states(goals), torch.zeros(3, 1))
    torch.testing.assert_close(action, goals.sign(), atol=0.1, rtol=0)


def test_the_constraint_keeps_the_goals_to_what_can_be_reached() -> None:
    algorithm = make_planner("mpc_constrained")
    goal = torch.tensor([[1.8, 1.8]])
    force = torch.tensor([1.0, 1.0])
    reachable, dreamt = REACHED + 0.05 * force, torch.tensor([1.8, 1.8])
    candidates = torch.stack([reachable, dreamt])[None]
    actions = torch.stack([force, force])[None]
    score = algorithm.score(make_states(goal), torch.zeros(1, 1), actions, candidates, goal, 10.0)[0]
    # The goal itself would pay 0, but its Q is far from 0; what is reached has a Q of 0 and pays what it is worth.
    gap = (dreamt - reachable).abs().sum()
    expected = torch.stack([-(goal[0] - reachable).square().sum().sqrt(), -10.0 * gap])
    torch.testing.assert_close(score, expected)
    direct = make_planner("mpc_direct").score(make_states(goal), torch.zeros(1, 1), actions, candidates, goal, 10.0)[0]
    torch.testing.assert_close(direct, expected[0].expand(2))  # whatever it goes for, it is there


def test_the_constraint_is_in_distances_whatever_the_reward_s_scale() -> None:
    goal, actions = torch.tensor([[1.8, 1.8]]), torch.zeros(1, 1, 2)
    scores = [
        make_planner("mpc_constrained", reward_scale=scale).score(
            make_states(goal), torch.zeros(1, 1), actions, torch.ones(1, 1, 2), goal, 10.0
        )
        for scale in (1.0, 10.0)
    ]
    torch.testing.assert_close(scores[0], scores[1])


def test_direct_planning_chooses_among_goals_too() -> None:
    """A model that moves on by a tenth of where it is told to go reaches further if it is told to go further."""
    algorithm = make_planner("mpc_direct")
    algorithm.critic = Dynamics(bias=0.1)
    goal = torch.tensor([[0.1 + 0.03 + 0.05 + 0.2, 0.1]])  # all force, and a goal of 2, reach it; no other pair does
    state = make_states(goal)
    action = algorithm.choose(state, torch.zeros(1, 1))
    assert action[0, 0] > 0.9
    told = [
        algorithm.score(state, torch.zeros(1, 1), torch.tensor([[[1.0, 0.0]]]), g.view(1, 1, 2), goal, 1.0)
        for g in (goal[0], torch.tensor([2.0, 0.0]))
    ]
    assert told[0] < -0.1 and told[1].abs() < 1e-6


def test_goals_are_given_to_networks_as_they_see_them() -> None:
    algorithm = TDM(hidden_sizes=[8], acting="mpc_direct", normalize_observations=True)
    algorithm.configure(SPEC)
    algorithm.normalizer.update(torch.randn(500, SPEC.observation_dim) * 4 + 2)
    raw = make_states(torch.tensor([[0.5, -0.5]]))
    other = make_states(torch.tensor([[0.9, 0.3]]))
    candidate, action = other[:, SPEC.parts["desired_goal"]], torch.tensor([[0.2, -0.2]])
    tau, goal = torch.ones(1, 1), raw[:, SPEC.parts["desired_goal"]]
    found = algorithm.score(algorithm.normalize(raw), tau, action[None], candidate[None], goal, 1.0)
    seen = algorithm.with_horizon(algorithm.normalize(other), tau)
    reached = algorithm.reached(algorithm.critic.first(seen, action))
    torch.testing.assert_close(found, goal_distance(reached, goal))


def test_the_task_s_own_reward_is_maximised() -> None:
    pusher = describe(EnvConfig("tdm/Pusher"))
    algorithm = TDM(hidden_sizes=[8], acting="mpc_direct")
    algorithm.configure(pusher)
    assert algorithm.goal_reward is goal_rule("tdm/Pusher")
    unknown = TDM(hidden_sizes=[8], acting="mpc_direct")
    unknown.configure(describe(EnvConfig("tests.helpers.toys:Goal-v0")))
    achieved, desired = torch.randn(2, 5, 1)
    torch.testing.assert_close(unknown.goal_reward(achieved, desired), -(achieved - desired).abs())


def test_the_range_of_goals_is_of_those_that_were_seen() -> None:
    from tensordict import TensorDict

    algorithm = TDM(hidden_sizes=[8])
    algorithm.configure(SPEC)
    seen = torch.randn(2, 7, SPEC.observation_dim)
    for half in (seen[:, :3], seen[:, 3:]):
        algorithm.after_collect(None, TensorDict({"next": {"observation": half}}, half.shape[:2]))
    goals = torch.cat([seen[..., SPEC.parts[key]].flatten(0, 1) for key in ("achieved_goal", "desired_goal")])
    assert torch.equal(algorithm.goal_low, goals.amin(0)) and torch.equal(algorithm.goal_high, goals.amax(0))


def test_evaluations_search_with_the_same_random_numbers_and_disturb_no_others() -> None:
    algorithm = make_planner("mpc_direct", planner=CEM(horizon=1, num_candidates=8, num_elites=2, iterations=1))
    states, start = make_states(WANTED), torch.ones(3, 1, dtype=torch.bool)
    before = torch.get_rng_state()
    first, second = algorithm.eval_policy(), algorithm.eval_policy()
    actions = [(policy(states, start), policy(states, ~start)) for policy in (first, second)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(actions[0][0], actions[1][0]) and torch.equal(actions[0][1], actions[1][1])
    assert not torch.equal(actions[0][0], actions[0][1])


def test_a_plan_has_one_step() -> None:
    with pytest.raises(OptionError, match=r"model\.planner\.horizon=5: expected 1"):
        TDM(acting="mpc_direct", planner=CEM(horizon=5))
