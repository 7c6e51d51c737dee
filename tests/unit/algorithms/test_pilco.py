"""PILCO: when it learns, what it predicts, its gradient, exact resume, and mistakes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms import PILCO
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.envs.spec import Features
from lit_mbrl.models.costs import SaturatingCost
from lit_mbrl.models.moment_matching import Gaussian, Kernels
from lit_mbrl.training.lbfgs import flat_parameters, set_parameters, value_and_gradient
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

SMALL: dict[str, Any] = {"horizon": 4, "num_basis": 4, "policy_iterations": 3, "model_iterations": 5}


def make_pilco(**options: Any) -> PILCO:
    return PILCO(**({"initial_std": [0.1] * 4} | SMALL | options))


def cart_pole(**options: Any) -> OffPolicy:
    return make_data(env="pets/CartPole", **options)


class Counted(PILCO):
    """Notes when it learns, and from how much."""

    learned: list[tuple[int, int]]

    def fit_model(self, frames: TensorDictBase) -> None:
        self.learned.append((self.env_steps, len(frames)))
        super().fit_model(frames)


@pytest.mark.parametrize("learning_starts", [24, 18])
def test_a_stage_follows_the_warm_up_and_each_trial(learning_starts: int) -> None:
    algorithm = Counted(**SMALL, initial_std=[0.1] * 4)
    algorithm.learned = []
    fit(algorithm, cart_pole(learning_starts=learning_starts))
    ends = [end for end in range(12, 61, 12) if end > learning_starts]
    assert algorithm.learned == [(step, step) for step in [learning_starts, *ends]]


# ---------------------------------------------------------------------- the model's trajectory
def linear_system(kind: str = "linear") -> PILCO:
    """x' = x + 0.1 u and a second number that only falls, of which a few transitions are known."""
    cost = SaturatingCost(matrix=((1.0, 0.0),), target=(1.0,), width=0.5, action_weight=0.01)
    algorithm = make_pilco(cost=cost, policy=kind, initial_std=[0.1, 0.1], initial_mean=[0.0, 0.3], horizon=5)
    algorithm.configure(Spec("toy", 2, 1))
    torch.manual_seed(0)
    frames = transitions(2 * torch.rand(40, 2) - 0.5, 2 * torch.rand(40, 1) - 1)
    algorithm.notify_progress = lambda news: None  # type: ignore[method-assign]
    algorithm.model.max_iterations = 50
    algorithm.fit_model(frames)
    algorithm.actor.initialize(algorithm.regression(frames)[0][:, :2])
    with torch.no_grad():
        for parameter in algorithm.actor.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return algorithm


def transitions(observation: Tensor, action: Tensor) -> TensorDict:
    following = observation + torch.cat([0.1 * action, -0.05 * torch.ones_like(action)], -1)
    end = torch.zeros(len(action), 1, dtype=torch.bool)
    after = TensorDict({"observation": following, "terminated": end, "truncated": end}, [len(action)])
    return TensorDict({"observation": observation, "action": action, "next": after}, [len(action)])


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_predicted_trajectory_is_that_of_samples(kind: str) -> None:
    algorithm = linear_system(kind)
    start = algorithm.start_states(transitions(torch.zeros(1, 2), torch.zeros(1, 1)))
    with torch.no_grad():
        steps = list(algorithm.predict(start))
    x = start.mean + 0.1 * torch.randn(200_000, 2).double()
    for step in steps:
        action = algorithm.act(x)
        x = x + torch.cat([0.1 * action, torch.full_like(action, -0.05)], -1)
        cost = 1 - (-0.5 * (x[:, 0] - 1).square() / 0.25).exp() + 0.01 * action[:, 0].square()
        torch.testing.assert_close(step.state.mean, x.mean(0), atol=5e-3, rtol=0)
        torch.testing.assert_close(step.state.covariance, torch.cov(x.T), atol=1e-3, rtol=0)
        torch.testing.assert_close(step.cost, cost.mean(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    algorithm = linear_system(kind)
    start = Gaussian(torch.tensor([0.0, 0.3]).double(), 0.01 * torch.eye(2).double())

    def evaluate(flat: Tensor) -> tuple[float, Tensor]:
        set_parameters(algorithm.actor, flat)
        return value_and_gradient(lambda: algorithm.expected_cost(start), list(algorithm.actor.parameters()))

    at = flat_parameters(algorithm.actor)
    gradient = evaluate(at)[1]
    assert gradient.norm() > 0.05
    for direction in [gradient, *torch.randn(4, len(at)).double()]:
        step = 1e-4 * direction / direction.norm()
        slope = (evaluate(at + step)[0] - evaluate(at - step)[0]) / 2e-4
        assert slope == pytest.approx(float(gradient @ direction / direction.norm()), abs=2e-4)


def test_the_policy_search_finds_the_direction() -> None:
    """The target is to the right, and farther than one can come within the horizon: full force all the way."""
    algorithm = linear_system("linear")
    algorithm.policy_iterations, frames = 40, transitions(torch.rand(10, 2) - 0.5, torch.zeros(10, 1))
    algorithm.action_weight = 0.0
    algorithm.improve_policy(frames)
    assert (algorithm.act(torch.tensor([[0.0, 0.3], [0.3, 0.1]])) > 0.95).all()
    with torch.no_grad():
        steps = list(algorithm.predict(algorithm.start_states(frames)))
    predicted = torch.stack([step.state.mean[0] for step in steps]) - steps[0].state.mean[0] + 0.1
    torch.testing.assert_close(predicted, 0.1 * torch.arange(1, 6).double(), atol=0.03, rtol=0)
    assert algorithm._notes["policy/predicted_cost"] == pytest.approx(float(algorithm.predicted_cost[0].mean()))


def test_the_least_cost_of_several_searches_is_kept() -> None:
    algorithm = linear_system("rbf")
    algorithm.policy_restarts, algorithm.first_restarts = 3, 4
    found = []
    plain = algorithm.expected_cost

    def watched(start: Gaussian) -> Tensor:
        cost = plain(start)
        found.append(float(cost.detach()))
        return cost

    algorithm.expected_cost = watched  # type: ignore[method-assign]
    algorithm.improve_policy(transitions(torch.rand(10, 2), torch.zeros(10, 1)))
    assert algorithm._notes["policy/predicted_cost"] * 5 == pytest.approx(min(found))
    assert algorithm._notes["policy/evaluations"] == len(found)


def test_angles_are_seen_as_sines_and_cosines() -> None:
    algorithm = make_pilco()
    algorithm.configure(describe(EnvConfig("pets/CartPole")))
    observation, action = torch.randn(6, 4), torch.zeros(6, 1)
    turned = observation + torch.tensor([0.0, 2 * torch.pi, 0.0, 0.0])
    following = TensorDict({"observation": observation}, [6])
    inputs = [
        algorithm.regression(TensorDict({"observation": each, "action": action, "next": following}, [6]))[0]
        for each in (observation, turned)
    ]
    assert inputs[0].shape == (6, 6)  # x, two velocities, sine, cosine, action
    torch.testing.assert_close(*inputs, atol=1e-5, rtol=1e-5)
    algorithm.actor.initialize(inputs[0][:, :5])
    torch.testing.assert_close(algorithm.act(observation), algorithm.act(turned), atol=1e-5, rtol=1e-5)


def test_realised_costs_are_one_minus_the_reward() -> None:
    algorithm, data = make_pilco(), cart_pole()
    fit(algorithm, data)
    frames = data.replay.frames()
    torch.testing.assert_close(1 - algorithm.realised_cost(frames), frames["next", "reward"][:, 0].double())


def test_metrics_compare_the_trial_with_the_prediction() -> None:
    seen: dict[str, float] = {}

    class Looks(PILCO):
        def note_surprise(self, frames: TensorDictBase) -> None:
            super().note_surprise(frames)
            count = int(self.fitted_frames)
            realised = self.realised_cost(frames[count:])[:4]
            inputs, changes = self.regression(frames)
            assert isinstance(self.kernels, Kernels)
            mean, variance = self.kernels.predict(inputs[count:])
            total = variance + self.model.noise.square()
            nll = ((changes[count:] - mean).square() / total + total.log()).mean()
            seen["model/holdout_nll"] = float(nll)
            seen["policy/realised_cost"] = float(realised.mean())
            seen["policy/cost_gap"] = float((realised - self.predicted_cost[0]).abs().mean())

    algorithm = Looks(**SMALL, initial_std=[0.1] * 4)
    fit(algorithm, cart_pole(), log_every_n_steps=1000)
    assert {name: algorithm._notes[name] for name in seen} == pytest.approx(seen)
    assert {"model/log_evidence", "model/points", "policy/predicted_cost"} <= algorithm._notes.keys()


def test_a_warm_up_that_ends_within_an_episode_is_compared_with_nothing() -> None:
    algorithm = make_pilco()
    fit(algorithm, cart_pole(learning_starts=18, total_frames=24), log_every_n_steps=1000)
    assert "model/holdout_nll" in algorithm._notes and "policy/realised_cost" not in algorithm._notes


def test_first_states_are_learned_where_they_are_not_given() -> None:
    algorithm = make_pilco(initial_std=None)
    data = cart_pole(learning_starts=36)
    fit(algorithm, data)
    first = data.replay.frames()["observation"][::12].double()
    start = algorithm.start_states(data.replay.frames())
    torch.testing.assert_close(start.mean, first.mean(0))
    torch.testing.assert_close(start.covariance, torch.cov(first.T, correction=0))


# ---------------------------------------------------------------------- resume
@pytest.mark.parametrize("rounds", [1, 11, 12, 17])  # the first, before and after a stage, in the middle of a trial
@pytest.mark.parametrize("options", [{}, {"max_points": 15}], ids=["exact", "sparse"])
def test_resume_gives_the_same_bits(rounds: int, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    whole, whole_data = make_pilco(**options), cart_pole()
    fit(whole, whole_data, log_every_n_steps=1000)
    with pytest.raises(Stop):
        fit(make_pilco(**options), cart_pole(), SaveAndStop(path, rounds), log_every_n_steps=1000)
    second, second_data = make_pilco(**options), cart_pole()
    fit(second, second_data, seed=12345, ckpt_path=path, log_every_n_steps=1000)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert whole._notes == second._notes


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"policy": "mlp"}, "--model.policy=mlp: expected rbf or linear"),
        ({"horizon": 0}, "--model.horizon=0: expected an integer > 0"),
        ({"num_basis": 0}, "--model.num_basis=0: expected an integer > 0"),
        ({"max_points": 0}, "--model.max_points=0: expected an integer > 0"),
        ({"angles": [-1]}, r"--model.angles=\[-1\]: expected a list \(an integer >= 0 each\)"),
        ({"max_signal_to_noise": 0.5}, "--model.max_signal_to_noise=0.5: expected a number > 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        make_pilco(**options)


@pytest.mark.parametrize(
    ("env", "options", "line"),
    [
        (
            EnvConfig("pets/CartPole"),
            {"angles": [4]},
            r"--model.angles=\[4\]: expected different positions from 0 to 3",
        ),
        (EnvConfig("pets/CartPole"), {"angles": [1, 1]}, r"--model.angles=\[1, 1\]: expected different positions"),
        (EnvConfig("pets/CartPole"), {"angles": []}, "--model.cost.matrix=.*: expected rows of 4 numbers"),
        (EnvConfig("pets/CartPole"), {"initial_std": [0.1]}, r"--model.initial_std=\[0.1\]: expected 4 numbers >= 0"),
        (EnvConfig("pets/CartPole"), {"initial_mean": [0.1]}, r"--model.initial_mean=\[0.1\]: expected 4 numbers"),
        (EnvConfig("pets/CartPole", max_episode_steps=3), {}, "--model.horizon=4: expected at most 3"),
        (EnvConfig("pets/CartPole", action_repeat=2), {}, "--model.cost=null: expected matrix, target and width"),
        (EnvConfig("Pendulum-v1"), {}, "--model.cost=null: expected matrix, target and width"),
        (EnvConfig("CartPole-v1"), {}, "--data.env.name=CartPole-v1: expected an environment with continuous"),
        (EnvConfig("CarRacing-v3"), {}, "--data.env.name=CarRacing-v3: expected an environment with a vector"),
    ],
)
def test_tasks_that_do_not_suit(env: EnvConfig, options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        make_pilco(**options).check(describe(env))


@pytest.mark.parametrize(
    ("model", "data", "line"),
    [
        ({}, {"num_envs": 2, "frames_per_batch": 2}, "--data.env.num_envs=2: expected 1: PILCO learns after each"),
        ({}, {"capacity": 50}, "--data.capacity=50: expected at least data.total_frames=60"),
        ({"initial_std": None}, {"learning_starts": 12}, "--model.initial_std=null: expected standard deviations"),
    ],
)
def test_data_that_do_not_suit(model: dict[str, Any], data: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        fit(make_pilco(**model), cart_pole(**data))


def test_a_missing_package_is_one_line_and_an_agent_still_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    algorithm, spec = make_pilco(), describe(EnvConfig("pets/CartPole"))
    with pytest.raises(OptionError, match=r"--model.class_path=PILCO: expected GPyTorch .*'lit-mbrl\[gp\]'"):
        algorithm.check(spec)
    algorithm.configure(spec)
    assert algorithm.act(torch.randn(3, 4)).shape == (3, 1)


def test_several_devices() -> None:
    with pytest.raises(OptionError, match="--trainer.devices=2: expected 1 with PILCO"):
        make_pilco().check_devices(2)


def test_a_cost_needs_the_task_s_sines() -> None:
    """The toy has an angle; the cost's rows count its sine and its cosine."""
    spec = Spec("toy", 2, 1, features=Features(angles=(0,)))
    with pytest.raises(OptionError, match="--model.cost.matrix=.*: expected rows of 4 numbers"):
        cost = SaturatingCost(matrix=((1.0, 0.0),), target=(0.0,), width=1.0)
        make_pilco(initial_std=[0.1, 0.1], cost=cost).check(spec)
