"""Tables: Q-learning and planning against traces by hand, and against value iteration."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from lit_mbrl.envs.tasks import mazes
from lit_mbrl.training.tabular import ModelTable, plan, q_update


def make_q(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_q_learning_against_a_trace_by_hand() -> None:
    q = make_q([[0.0, 2.0], [4.0, -1.0]])
    q_update(q, 0, 1, 1.0, 1, False, lr=0.5, gamma=0.5)  # 2 + 0.5 (1 + 0.5 4 - 2)
    q_update(q, 1, 0, 1.0, 0, True, lr=0.5, gamma=0.5)  # 4 + 0.5 (1 - 4)
    assert q.tolist() == [[0.0, 2.5], [2.5, -1.0]]


def test_the_model_keeps_the_last_outcome_and_the_order() -> None:
    model = ModelTable(3, 2)
    for outcome in ((2, 1, 0.5, 0, False), (0, 0, 0.0, 1, False), (2, 0, 1.0, 1, True), (2, 1, -1.0, 2, False)):
        model.observe(*outcome)
    assert model.visited[: model.num_visited].tolist() == [2, 0]
    assert model.num_taken.tolist() == [1, 0, 2] and model.taken[2].tolist() == [1, 0]
    assert (int(model.following[2, 1]), float(model.reward[2, 1])) == (2, -1.0)  # the world has changed
    assert model.terminated.tolist() == [[False, False], [False, False], [True, False]]
    assert model.last_taken.tolist() == [[2, 0], [0, 0], [3, 4]] and int(model.time) == 4


def test_planning_against_a_trace_by_hand() -> None:
    q, model = make_q([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), ModelTable(3, 2)
    model.observe(0, 1, 0.0, 1, False)
    model.observe(1, 0, 1.0, 2, True)
    model.observe(1, 1, 2.0, 0, False)
    # The draws are state 1, its second action; state 0, its only one; state 1, its first.
    plan(q, model, torch.tensor([[0.6, 0.9], [0.1, 0.7], [0.99, 0.4]]), lr=0.5, gamma=0.5)
    assert q.tolist() == [[0.0, 0.25], [0.5, 1.0], [0.0, 0.0]]


def test_the_bonus_is_kappa_times_the_root_of_the_time() -> None:
    q, model = make_q([[0.0, 0.0]] * 2), ModelTable(2, 2)
    for _ in range(5):
        model.observe(1, 0, 1.0, 0, True)
    model.observe(0, 1, 0.0, 1, False)  # time 6
    # State 1 was visited first: its actions 0 and 1, then state 0's actions 1 and 0.
    draws = torch.tensor([[0.0, 0.0], [0.0, 0.9], [0.9, 0.9], [0.9, 0.0]])
    plan(q, model, draws, lr=1.0, gamma=0.5, kappa=0.1, untried=True)
    ended, stayed = 1.0 + 0.1 * math.sqrt(1), 0.1 * math.sqrt(6) + 0.5 * 1.1  # the latter was never taken
    assert q[1].tolist() == pytest.approx([ended, stayed])
    there = 0.0 + 0.5 * max(ended, stayed)  # taken just now
    assert q[0].tolist() == pytest.approx([0.1 * math.sqrt(6) + 0.5 * there, there])


def test_untried_actions_are_drawn_only_if_asked_for() -> None:
    for untried in (False, True):
        q, model = make_q([[0.0, 0.0]] * 2), ModelTable(2, 2)
        model.observe(0, 0, 0.0, 0, False)
        plan(q, model, torch.rand(100, 2), lr=1.0, gamma=0.5, kappa=1.0, untried=untried)
        assert (q[0, 1] > 0) == untried
        assert q[1].tolist() == [0.0, 0.0]  # its state was never visited


def naive_plan(q: Any, model: dict, draws: list, states: list, taken: dict, lr: float, gamma: float) -> None:
    for first, second in draws:
        state = states[int(first * len(states))]
        action = taken[state][int(second * len(taken[state]))]
        reward, following, terminated = model[state, action]
        target = reward + (0.0 if terminated else gamma * max(q[following]))
        q[state][action] += lr * (target - q[state][action])


def test_planning_against_a_plain_loop_over_dictionaries() -> None:
    rng = random.Random(0)
    q, table = torch.zeros(7, 3, dtype=torch.float64), ModelTable(7, 3)
    plain, model, states, taken = q.tolist(), {}, [], {}
    for _ in range(60):
        state, action, following = rng.randrange(7), rng.randrange(3), rng.randrange(7)
        reward, terminated = rng.gauss(0.0, 1.0), rng.random() < 0.2
        table.observe(state, action, reward, following, terminated)
        if state not in taken:
            states.append(state)
        taken.setdefault(state, [])
        if action not in taken[state]:
            taken[state].append(action)
        model[state, action] = reward, following, terminated
        draws = torch.rand(5, 2, dtype=torch.float64)
        plan(q, table, draws, 0.3, 0.9)
        naive_plan(plain, model, draws.tolist(), states, taken, 0.3, 0.9)
    assert q.tolist() == plain


def test_planning_converges_to_value_iteration_s_optimum() -> None:
    maze = mazes.make("Dyna")
    states, actions = int(maze.observation_space.n), int(maze.action_space.n)
    model, outcomes = ModelTable(states, actions), {}
    for state in range(states):
        cell = maze.rows[state // 9][state % 9]
        if cell in "#G":
            continue
        for action in range(actions):
            maze.set_extra_state({"cell": state, "steps": 0})
            following, reward, terminated, _, _ = maze.step(action)
            outcomes[state, action] = reward, following, terminated
            model.observe(state, action, reward, following, terminated)
    optimum = torch.zeros(states, actions, dtype=torch.float64)
    for _ in range(200):
        value = optimum.amax(1).tolist()
        for (state, action), (reward, following, terminated) in outcomes.items():
            optimum[state, action] = reward + (0.0 if terminated else 0.95 * value[following])
    q = torch.zeros_like(optimum)
    torch.manual_seed(0)
    plan(q, model, torch.rand(100_000, 2, dtype=torch.float64), lr=1.0, gamma=0.95)
    torch.testing.assert_close(q, optimum)
    assert optimum.view(6, 9, 4)[2, 0].max().item() == pytest.approx(0.95**13)  # 14 steps from the start
