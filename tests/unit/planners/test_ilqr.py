"""iLQR against the Riccati equation, bounded least squares and optimality conditions; and in our world models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from lit_mbrl.algorithms import TDM
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.models import EnsembleConfig, RecurrentConfig
from lit_mbrl.planners import ILQR, ModelObjective, TruncatedCEM, model_objective
from lit_mbrl.planners.box_qp import solve_box_qp
from lit_mbrl.planners.derivatives import convex, gradient_and_hessian, is_differentiable, jacobian
from lit_mbrl.planners.ilqr import rollout
from lit_mbrl.planners.propagation import open_loop
from lit_mbrl.utils.errors import OptionError
from tests.helpers.planning import make_pets, make_poplin
from tests.helpers.runs import fit, make_data

A = torch.tensor([[1.0, 0.3, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.1, 1.05]], dtype=torch.float64)
B = torch.tensor([[0.0, 0.1], [0.3, 0.0], [0.1, 0.2]], dtype=torch.float64)
Q = torch.diag(torch.tensor([1.0, 0.1, 0.5], dtype=torch.float64))
R = torch.tensor([[0.3, 0.05], [0.05, 0.2]], dtype=torch.float64)
STARTS = torch.tensor([[0.2, -0.1, 0.1], [-0.1, 0.15, 0.05], [2.0, -1.0, 1.5]], dtype=torch.float64)


def linear_quadratic(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return x @ A.T + u @ B.T, -((x @ Q * x).sum(-1) + (u @ R * u).sum(-1))


def riccati(horizon: int) -> list[Tensor]:
    """Gains of the optimal law `u = K_t x`; the state after the last action costs nothing."""
    value, gains = torch.zeros_like(A), []
    for _ in range(horizon):
        gain = -torch.linalg.solve(R + B.T @ value @ B, B.T @ value @ A)
        value = Q + A.T @ value @ (A + B @ gain)
        gains.append(gain)
    return gains[::-1]


def pendulum(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Gymnasium's Pendulum-v1 on angle and velocity, actions in [-1, 1]."""
    angle, velocity, torque = x[:, 0], x[:, 1], 2.0 * u[:, 0]
    near = torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
    reward = -(near**2 + 0.1 * velocity**2 + 0.001 * torque**2)
    velocity = (velocity + (15.0 * angle.sin() + 3.0 * torque) * 0.05).clamp(-8.0, 8.0)
    return torch.stack([angle + 0.05 * velocity, velocity], 1), reward


def plan(planner: ILQR, step: Any, start: Tensor, action_dim: int, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    draws = [z.to(start) for z in planner.draws(len(start), action_dim)]
    return planner.search(ModelObjective(start, step), draws, planner.start(len(start), action_dim).to(start))


@pytest.mark.parametrize("limits", ["box", "clamp"])
@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_a_linear_quadratic_problem_has_the_riccati_solution(limits: str, regularization: float) -> None:
    planner = ILQR(horizon=12, iterations=80, limits=limits, regularization=regularization, tolerance=1e-14)
    found = planner.optimize(linear_quadratic, STARTS[:2], torch.zeros(2, 12, 2, dtype=torch.float64))
    assert found.converged.all() and (regularization or found.iterations <= 3)
    x = STARTS[:2]
    for t, gain in enumerate(riccati(12)):
        torch.testing.assert_close(found.actions[:, t], x @ gain.T, rtol=1e-6, atol=1e-7)
        if not regularization:
            torch.testing.assert_close(found.gains[:, t], gain.expand(2, -1, -1))
        torch.testing.assert_close(found.states[:, t], x, rtol=1e-6, atol=1e-7)
        x = x @ A.T + x @ gain.T @ B.T
    assert found.actions.abs().max() < 0.95  # the limits play no part


def test_with_active_limits_it_is_the_solution_of_bounded_least_squares() -> None:
    """States are linear in the actions: `|L (f + G u)|^2 + |C u|^2` with `-1 <= u <= 1`."""
    horizon, start = 8, STARTS[2:]
    planner = ILQR(horizon=horizon, iterations=100, tolerance=1e-14)
    found = planner.optimize(linear_quadratic, start, torch.zeros(1, horizon, 2, dtype=torch.float64))
    zero = torch.zeros(1, horizon, 2, dtype=torch.float64)
    free = rollout(linear_quadratic, start, zero)[0][0, :-1].reshape(-1)
    columns = []
    for i in range(2 * horizon):
        unit = zero.reshape(-1).index_fill(0, torch.tensor(i), 1.0).view(1, horizon, 2)
        columns.append(rollout(linear_quadratic, torch.zeros(1, 3, dtype=torch.float64), unit)[0][0, :-1].reshape(-1))
    weight = torch.block_diag(*[Q.sqrt()] * horizon)
    cost = torch.block_diag(*[torch.linalg.cholesky(R).T] * horizon)
    matrix = torch.cat([weight @ torch.stack(columns, 1), cost]).numpy()
    target = torch.cat([-weight @ free, torch.zeros(2 * horizon, dtype=torch.float64)]).numpy()
    best = scipy.optimize.lsq_linear(matrix, target, (-1.0, 1.0), tol=1e-14).x.reshape(horizon, 2)
    assert (np.abs(best) > 1 - 1e-6).any() and (np.abs(best) < 0.9).any()
    assert found.converged.all() and found.actions.abs().max() <= 1.0
    np.testing.assert_allclose(found.actions[0].numpy(), best, atol=1e-5)


def test_the_pendulum_swings_up_from_hanging() -> None:
    planner = ILQR(horizon=100, iterations=200, num_candidates=8)
    start = torch.tensor([[torch.pi, 0.0]], dtype=torch.float64)
    found = plan(planner, pendulum, start, 1)
    assert found.iterations < 200  # it has converged
    states, returns = rollout(pendulum, start, found.plan)
    torch.testing.assert_close(returns, found.elite_return)
    up = torch.remainder(states[0, -20:, 0] + torch.pi, 2 * torch.pi) - torch.pi
    assert up.abs().max() < 0.05 and states[0, -20:, 1].abs().max() < 0.1
    assert returns.item() > -320  # hanging all the time costs 987
    # No action is better a little up or down, unless a limit is in the way.
    actions = found.plan.clone().requires_grad_()
    (slope,) = torch.autograd.grad(rollout(pendulum, start, actions)[1].sum(), actions)
    inside = found.plan.abs() < 1.0
    assert 5 < inside.sum() < 100
    assert slope[inside].abs().max() < 0.02
    assert (slope[~inside] * found.plan[~inside] > 0).all()


def test_a_batch_is_its_environments_one_by_one() -> None:
    planner = ILQR(horizon=40, iterations=25, num_candidates=3)
    start = torch.tensor([[3.0, 0.0], [0.3, -0.2], [-2.0, 1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    draws = [z.double() for z in planner.draws(3, 1)]
    memory = 0.1 * torch.randn(3, 1, 40, 1, dtype=torch.float64)
    together = planner.search(ModelObjective(start, pendulum), draws, memory)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = planner.search(ModelObjective(start[rows], pendulum), [z[rows] for z in draws], memory[rows])
        for ours, theirs in zip(alone[:4], together[:4], strict=True):
            torch.testing.assert_close(ours, theirs[rows])


@pytest.mark.parametrize("limits", ["box", "clamp"])
def test_limits_hold_in_every_step(limits: str) -> None:
    def greedy(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        assert u.abs().max() <= 1.0
        return x + u, x[:, 0] - 0.01 * (x**2).sum(-1)

    planner = ILQR(horizon=6, iterations=20, limits=limits)
    found = plan(planner, greedy, torch.zeros(2, 1), 1)
    assert (found.plan[:, :-1] == 1.0).all()  # the last one earns nothing


def test_a_model_that_is_broken_gives_a_finite_plan() -> None:
    def broken(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return x + u, torch.where(x[:, 0] > 5, torch.nan, -((x[:, 0] - 1.0) ** 2))

    start = torch.tensor([[0.0], [9.0]])
    found = plan(ILQR(horizon=5, num_candidates=2), broken, start, 1)
    assert found.plan.isfinite().all() and found.memory.isfinite().all()
    assert found.elite_return[0] > -1.1  # its first state is 1 away from the best


def test_the_memory_is_the_last_plan_without_its_first_action() -> None:
    planner = ILQR(horizon=10, iterations=50)
    found = plan(planner, linear_quadratic, STARTS[:2], 2)
    memory = planner.shift(found.memory)
    torch.testing.assert_close(memory[:, 0, :-1], found.plan[:, 1:])
    assert (memory[:, :, -1] == 0).all() and memory.shape == planner.start(2, 2).shape


# ---------------------------------------------------------------------- parts
def test_box_problems_meet_their_optimality_conditions() -> None:
    torch.manual_seed(0)
    root = torch.randn(200, 4, 4, dtype=torch.float64)
    hessian = root @ root.transpose(1, 2) + 0.1 * torch.eye(4, dtype=torch.float64)
    gradient = 3 * torch.randn(200, 4, dtype=torch.float64)
    low, high = -torch.rand(200, 4, dtype=torch.float64), torch.rand(200, 4, dtype=torch.float64)
    x, free = solve_box_qp(hessian, gradient, low, high)
    assert (x >= low).all() and (x <= high).all()
    slope = gradient + (hessian @ x.unsqueeze(-1)).squeeze(-1)
    assert slope[free].abs().max() < 1e-7
    assert (slope[x == low] > -1e-7).all() and (slope[x == high] < 1e-7).all()
    held = (x == low) | (x == high)
    assert (held == ~free).all() and 100 < held.sum() < 700


def test_derivatives_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    z = torch.randn(5, 3, dtype=torch.float64)

    def values(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0] * z[:, 1].sin(), z[:, 2] ** 3], 1)

    found, jacobians = jacobian(values, z)
    gradients, hessians = gradient_and_hessian(lambda z: values(z).prod(1), z)
    torch.testing.assert_close(found, values(z))
    for i in range(5):
        alone = torch.autograd.functional.jacobian(lambda row: values(row[None])[0], z[i])
        torch.testing.assert_close(jacobians[i], alone)
        product = lambda row: values(row[None]).prod()  # noqa: E731
        torch.testing.assert_close(gradients[i], torch.autograd.functional.jacobian(product, z[i]))
        torch.testing.assert_close(hessians[i], torch.autograd.functional.hessian(product, z[i]))
    linear = gradient_and_hessian(lambda z: z[:, 0], z)
    assert (linear[0] == torch.tensor([1.0, 0, 0])).all() and (linear[1] == 0).all()
    assert is_differentiable(values, z) and not is_differentiable(lambda z: z > 0, z)


def test_a_convex_hessian_has_no_negative_eigenvalues() -> None:
    mixed = torch.tensor([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
    torch.testing.assert_close(convex(mixed), torch.full((2, 2), 1.5))
    torch.testing.assert_close(convex(R), R)


# ---------------------------------------------------------------------- our models
@pytest.mark.parametrize(
    "config",
    [
        RecurrentConfig(hidden_size=16, layers=1, decoder_layers=1, gru_layers=2),
        EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=[16, 16], termination="learned"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_it_plans_in_our_world_models(config: Any) -> None:
    torch.manual_seed(0)
    model = config.build(3, 2)
    observation, planner = torch.randn(4, 3), ILQR(horizon=6, iterations=30)
    objective = model_objective(model, observation)
    memory = planner.start(4, 2)
    found = planner.search(objective, planner.draws(4, 2), memory)
    assert found.plan.abs().max() <= 1.0
    before = objective(memory)[:, 0]
    assert (found.elite_return > before).all()
    torch.testing.assert_close(objective(found.plan[:, None])[:, 0], found.elite_return)
    # Other planners take the same objective; with so many candidates a random one is no better.
    random = objective(torch.rand(4, 300, 6, 2) * 2 - 1).amax(1)
    assert (found.elite_return >= random - 1e-3).all()


def test_a_recurrent_model_is_unrolled_with_its_memory() -> None:
    torch.manual_seed(0)
    model = RecurrentConfig(hidden_size=8, layers=1, decoder_layers=1, gru_layers=2).build(3, 2)
    observation, actions = torch.randn(4, 3), torch.rand(4, 5, 2)
    objective = model_objective(model, observation)
    states, _ = rollout(objective.step, objective.start, actions)
    torch.testing.assert_close(states[:, 1:, :3], model.unroll(observation, actions))


def test_an_ensemble_is_its_elites_mean() -> None:
    torch.manual_seed(0)
    model = EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=[8], termination="learned").build(3, 2)
    observation, actions = torch.randn(4, 3), torch.rand(4, 5, 2)
    objective = model_objective(model, observation)
    torch.testing.assert_close(
        rollout(objective.step, observation, actions)[0][:, 1:], model.unroll(observation, actions)
    )


# ---------------------------------------------------------------------- PETS
def test_pets_plans_by_ilqr() -> None:
    algorithm = make_pets(planner=ILQR(horizon=4, iterations=3), propagation="E", particles=1)
    fit(algorithm, make_data())
    assert algorithm.progress_metrics()["time/model_rollouts"] > 0
    action = algorithm.explore(torch.randn(2, 3), torch.ones(2, 1, dtype=torch.bool))
    assert action.shape == (2, 1) and action.abs().max() <= 1.0


@pytest.mark.parametrize("reward", ["known", "learned"])
def test_pets_step_is_what_its_particles_do(reward: str) -> None:
    algorithm = make_pets(planner=ILQR(horizon=4), propagation="E", particles=1, reward=reward)
    algorithm.configure(describe(EnvConfig("pets/CartPole")))
    observation, plans = torch.randn(2, 4), torch.rand(2, 3, 4, 1)
    expected = algorithm.sampler.returns(observation, plans, open_loop, 4)
    torch.testing.assert_close(ModelObjective(observation, algorithm.model_step)(plans), expected)


def test_pets_refuses_what_has_no_gradient() -> None:
    with pytest.raises(OptionError, match="--model.propagation=TSinf: expected E with model.planner=ILQR"):
        make_pets(planner=ILQR(horizon=4))
    algorithm = make_pets(planner=ILQR(horizon=4), propagation="E", particles=1)
    with pytest.raises(OptionError, match="--model.planner=ILQR: expected a planner without gradients.*InvertedPend"):
        algorithm.check(describe(EnvConfig("InvertedPendulum-v5")))
    for task in ("Pendulum-v1", "Reacher-v5", "mbpo/HalfCheetah", "pets/CartPole", "poplin/Hopper"):
        algorithm.check(describe(EnvConfig(task)))
    steps = Spec("steps", 3, 1, max_episode_steps=9, reward=lambda x, u, following: 1.0 * (following[..., :1] > 0))
    with pytest.raises(OptionError, match="--model.reward=auto: expected learned with model.planner=ILQR: the known"):
        algorithm.check(steps)
    make_pets(planner=ILQR(horizon=4), propagation="E", particles=1, reward="learned").check(steps)


def test_others_refuse_it() -> None:
    with pytest.raises(OptionError, match="--model.planner=ILQR: expected lit_mbrl.planners.TruncatedCEM"):
        make_poplin("REPLAN", planner=ILQR(horizon=4))
    with pytest.raises(OptionError, match="--model.planner=ILQR: expected a planner without gradients, as CEM"):
        TDM(planner=ILQR(horizon=1))
    with pytest.raises(TypeError, match="ModelObjective"):
        planner = ILQR(horizon=4)
        planner.search(lambda u: u.sum((-1, -2)), planner.draws(1, 1), planner.start(1, 1))
    assert not TruncatedCEM.needs_gradient


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"horizon": 0}, "--model.planner.horizon=0: expected an integer > 0"),
        ({"limits": "none"}, "--model.planner.limits=none: expected box or clamp"),
        ({"regularization": -1.0}, "--model.planner.regularization=-1.0: expected a number >= 0"),
        ({"step_sizes": 0}, "--model.planner.step_sizes=0: expected an integer > 0"),
        ({"num_candidates": 0}, "--model.planner.num_candidates=0: expected an integer > 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        ILQR(**options)
