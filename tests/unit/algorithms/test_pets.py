"""PETS: when it fits, what it plans for, exact resume, evaluations that nobody notices, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbrl.algorithms import PETS
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.planners import CEM, ICEM, MPPI
from lit_mbrl.utils.errors import OptionError
from tests.helpers.planning import contradicting, make_pets, planner
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

SMALL = {"horizon": 4, "num_candidates": 12, "num_elites": 3, "iterations": 2}


class Counted(PETS):
    """Notes when it fits."""

    fits: list[tuple[int, int]]

    def fit_model(self, replay: Any) -> None:
        self.fits.append((self.env_steps, len(replay)))
        super().fit_model(replay)


@pytest.mark.parametrize("learning_starts", [24, 18])
def test_the_model_is_fitted_to_all_data_after_the_warm_up_and_after_each_trial(learning_starts: int) -> None:
    algorithm = Counted(planner=planner(), hidden_sizes=[8], particles=5, model_epochs=1)
    algorithm.fits = []
    fit(algorithm, make_data(learning_starts=learning_starts))
    ends = [end for end in range(12, 61, 12) if end > learning_starts]
    assert algorithm.fits == [(step, step) for step in [learning_starts, *ends]]


def test_the_first_action_is_that_of_the_best_imagined_sequence() -> None:
    """A model that adds the action to the observation, and a reward that wants it to be 1 at once, and then 0."""
    algorithm = make_pets(planner=planner(num_candidates=400, num_elites=40, iterations=15, min_variance=0.0))
    algorithm.configure(Spec("toy", 1, 1))
    sampler = algorithm.sampler
    sampler.dynamics = contradicting(1e-4, predict_reward=False)
    with torch.no_grad():
        sampler.dynamics.networks.biases[-1][:, 0, 0] = 0.0
    sampler.dynamics.advance = lambda x, output: (x + output, None)
    sampler.reward = lambda x, u, following: -((following + u - 0.5) ** 2)
    torch.manual_seed(0)
    observation = torch.tensor([[0.2], [-0.1], [0.9]])
    action, search = algorithm.plan(observation, algorithm.memory.recall(torch.ones(3, 1, dtype=torch.bool)))
    torch.testing.assert_close(action, 0.5 - observation, atol=0.03, rtol=0)
    assert search.plan.shape == (3, 4, 1)


def test_a_plan_goes_on_within_an_episode_and_begins_anew_in_the_next_one() -> None:
    algorithm = make_pets()
    algorithm.configure(Spec("toy", 3, 1))
    observation, first = torch.randn(2, 3), torch.tensor([[True], [True]])
    algorithm.explore(observation, first)
    kept = algorithm.memory.plans.clone()
    assert (kept[:, :, :-1] != 0).any() and (kept[:, :, -1] == 0).all()
    recalled = algorithm.memory.recall(torch.tensor([[False], [True]]))
    assert torch.equal(recalled[0], kept[0]) and (recalled[1] == 0).all()
    algorithm.lose_track()
    assert (algorithm.memory.recall(~first) == 0).all()


@pytest.mark.parametrize(
    "search",
    [planner(), CEM(**SMALL), MPPI(horizon=4, num_candidates=12, iterations=2), ICEM(**SMALL)],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("propagation", ["TSinf", "TS1", "DS", "MM", "E"])
def test_every_planner_goes_with_every_propagation(propagation: str, search: Any) -> None:
    algorithm = make_pets(planner=search, propagation=propagation, particles=None if propagation == "E" else 2)
    algorithm.configure(describe(EnvConfig("pets/CartPole")))
    action = algorithm.explore(torch.randn(2, 4), torch.ones(2, 1, dtype=torch.bool))
    assert action.shape == (2, 1) and action.abs().max() <= 1 + 1e-6
    assert algorithm.explore(torch.randn(2, 4), torch.zeros(2, 1, dtype=torch.bool)).shape == (2, 1)


@pytest.mark.parametrize(
    ("env", "reward", "outputs"),
    [
        ("Pendulum-v1", "auto", 3),
        ("Pendulum-v1", "known", 3),
        ("Pendulum-v1", "learned", 4),
        ("MountainCarContinuous-v0", "auto", 3),
    ],
)
def test_the_reward_is_learned_where_it_is_not_known(env: str, reward: str, outputs: int) -> None:
    algorithm = make_pets(reward=reward)
    fit(algorithm, make_data(env=env))
    assert algorithm.dynamics.outputs == outputs
    assert (algorithm.sampler.reward is None) == (outputs == describe(EnvConfig(env)).observation_dim + 1)


def test_terminations_are_imagined_where_the_rule_is_known() -> None:
    algorithm = make_pets()
    algorithm.configure(describe(EnvConfig("InvertedPendulum-v5")))
    assert algorithm.sampler.terminated is describe(EnvConfig("InvertedPendulum-v5")).terminated is not None


def test_metrics_say_what_the_model_knew_before_it_learned() -> None:
    seen = {}

    class Looks(PETS):
        def fit_model(self, replay: Any) -> None:
            newest = replay.frames()[24:36] if len(replay) == 36 else None
            if newest is not None:
                seen["expected"] = self.dynamics.mean_nll(newest).item()
            super().fit_model(replay)
            if newest is not None:
                seen["noted"] = self._notes["model/holdout_nll"]

    algorithm = Looks(planner=planner(), hidden_sizes=[8], particles=5, model_epochs=1)
    fit(algorithm, make_data(), log_every_n_steps=1000)
    assert seen["noted"] == pytest.approx(seen["expected"])
    assert {"plan/cost", "plan/elite_variance", "plan/iterations"} <= algorithm._notes.keys()
    # 36 decisions, 2 iterations of 12 candidates with 5 particles over 4 steps each; evaluations do not count.
    assert algorithm.progress_metrics()["time/model_rollouts"] == 36 * 2 * 12 * 5 * 4


# ---------------------------------------------------------------------- evaluation
def test_evaluations_repeat_and_leave_no_trace() -> None:
    algorithm = make_pets()
    algorithm.configure(Spec("toy", 3, 1))
    observation, first = torch.randn(2, 3), torch.ones(2, 1, dtype=torch.bool)
    algorithm.explore(observation, first)
    state, plans = torch.get_rng_state(), algorithm.memory.plans.clone()

    def play() -> list[Tensor]:
        policy = algorithm.eval_policy()
        return [policy(observation, first), policy(observation, ~first)]

    once, again = play(), play()
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], once[1])
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(algorithm.memory.plans, plans)
    assert torch.equal(algorithm.act(observation), once[0])


# ---------------------------------------------------------------------- resume
def state_of(algorithm: PETS, data: OffPolicy) -> dict[str, Tensor]:
    state = everything(algorithm, data)
    for name, optimizer in algorithm.fitter.optimizers.items():
        for p, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{p}.{key}": value for key, value in values.items()}
    return state | {"notes": torch.tensor(list(algorithm._notes.values()))}


@pytest.mark.parametrize("rounds", [1, 11, 12, 17])  # the first, before and after a fit, in the middle of a trial
@pytest.mark.parametrize("options", [{}, {"num_envs": 2, "frames_per_batch": 2}], ids=["alone", "side by side"])
def test_resume_gives_the_same_bits(rounds: int, options: dict[str, Any], tmp_path: Path) -> None:
    path, search = tmp_path / "run.ckpt", ICEM(**SMALL, kept_elites=0.5)
    whole, whole_data = make_pets(planner=search), make_data(**options)
    fit(whole, whole_data, log_every_n_steps=1000)
    with pytest.raises(Stop):
        fit(make_pets(planner=search), make_data(**options), SaveAndStop(path, rounds), log_every_n_steps=1000)
    second, second_data = make_pets(planner=search), make_data(**options)
    fit(second, second_data, seed=12345, ckpt_path=path, log_every_n_steps=1000)
    expected, found = state_of(whole, whole_data), state_of(second, second_data)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []
    assert whole.progress_metrics()["time/model_rollouts"] == second.progress_metrics()["time/model_rollouts"]


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"propagation": "TS9"}, "--model.propagation=TS9: expected TSinf, TS1, DS, MM or E"),
        ({"particles": 3}, "--model.particles=3: expected a multiple of model.num_members=2"),
        ({"propagation": "E"}, "--model.particles=2: expected 1, or null"),
        ({"reward": "guessed"}, "--model.reward=guessed: expected known, learned or auto"),
        ({"model_epochs": 0}, "--model.model_epochs=0: expected an integer > 0"),
        ({"weight_decay": [1e-4]}, "--model.weight_decay=.*: expected 2 numbers >= 0"),
        ({"hidden_sizes": [0]}, "--model.hidden_sizes=.*: expected positive layer sizes"),
        ({"activation": "sine"}, "--model.activation=sine: expected swish, relu or tanh"),
        ({"model_lr": 0.0}, "--model.model_lr=0.0: expected a number > 0"),
        ({"chunk": 0}, "--model.chunk=0: expected an integer > 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        make_pets(**options)


@pytest.mark.parametrize(
    ("env", "options", "line"),
    [
        (EnvConfig("HalfCheetah-v5"), {"reward": "known"}, "--model.reward=known: expected learned or auto: "),
        (EnvConfig("pets/CartPole", max_episode_steps=3), {}, "--model.planner.horizon=4: expected at most 3"),
        (EnvConfig("CartPole-v1"), {}, "--data.env.name=CartPole-v1: expected an environment with continuous"),
        (EnvConfig("CarRacing-v3"), {}, "--data.env.name=CarRacing-v3: expected an environment with a vector"),
    ],
)
def test_tasks_that_do_not_suit(env: EnvConfig, options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        make_pets(**options).check(describe(env))


def test_several_devices() -> None:
    with pytest.raises(OptionError, match="--trainer.devices=2: expected 1 with PETS"):
        make_pets().check_devices(2)
