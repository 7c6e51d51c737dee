"""POPLIN: candidates against explicit networks, what the policy learns, both evaluations, exact resume, mistakes."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import POPLINA, POPLINP
from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.planners import CEM, TruncatedCEM
from lit_mbrl.training.model_fit import ModelFitter
from lit_mbrl.utils.errors import OptionError
from tests.helpers.planning import make_poplin, planner
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data
from tests.unit.networks.test_flat_mlp import explicit

H = 4
each_method = pytest.mark.parametrize("name", ["INIT", "REPLAN", "SEP", "UNI"])


def built(name: str, **options: Any) -> POPLINA | POPLINP:
    """On CartPole, with a policy that does something, whitened by statistics of its own."""
    torch.manual_seed(0)
    algorithm = make_poplin(name, **options)
    algorithm.configure(describe(EnvConfig("pets/CartPole")))
    with torch.no_grad():
        algorithm.policy.network.weights.normal_(0.0, 0.25)
    algorithm.policy.whitening.update(torch.randn(50, 4) * 2 + 1)
    return algorithm


def step(algorithm: Any, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the members' mean, and its reward."""
    mean, _ = algorithm.dynamics(x, u)
    following, _ = algorithm.dynamics.advance(x, mean.mean(0))
    return following, algorithm.sampler.reward(x, u, following)


# ---------------------------------------------------------------------- candidates
@pytest.mark.parametrize("name", ["SEP", "UNI"])
def test_noise_on_weights_is_a_network_for_each_candidate_and_step(name: str) -> None:
    algorithm = built(name)
    start, noise = torch.randn(2, 4), 0.3 * torch.randn(2, 3, H if name == "SEP" else 1, algorithm.search_dim)
    found = algorithm.sampler.returns(start, noise, algorithm.perturbed, H)
    for b in range(2):
        for n in range(3):
            x, total = start[b : b + 1], 0.0
            for t in range(H):
                weights = algorithm.policy.network.weights.detach() + noise[b, n, t if name == "SEP" else 0]
                policy = explicit([4, 5, 1], weights)
                with torch.no_grad():
                    u = policy(algorithm.policy.whitening(x)).clamp(-1, 1)
                    x, reward = step(algorithm, x, u)
                total += reward.item()
            assert found[b, n].item() == pytest.approx(total, abs=1e-4)


def test_noise_on_weights_acts_in_each_particle() -> None:
    """With particles of their own members: every particle asks the candidate's network about its own state."""
    algorithm = built("SEP", propagation="TSinf", particles=4)
    x, noise = torch.randn(2, 3, 2, 4), torch.randn(3, H, algorithm.search_dim)
    action = algorithm.perturbed(noise, x, 1)
    assert action.shape == (2, 3, 2, 1)
    for r in range(3):
        policy = explicit([4, 5, 1], algorithm.policy.network.weights.detach() + noise[r, 1])
        expected = policy(algorithm.policy.whitening(x[:, r])).clamp(-1, 1)
        torch.testing.assert_close(action[:, r], expected)


def test_replan_asks_the_policy_in_every_state_and_init_only_along_its_own_rollout() -> None:
    torch.manual_seed(4)
    start, noise = torch.randn(1, 4), 0.4 * torch.randn(1, 1, H, 1)
    found = {}
    for name in ("INIT", "REPLAN"):
        algorithm = built(name)
        x = y = start
        total = 0.0
        for t in range(H):
            with torch.no_grad():
                asked = algorithm.policy_action(y if name == "INIT" else x)
                x, reward = step(algorithm, x, (asked + noise[0, :, t]).clamp(-1, 1))
                y, _ = step(algorithm, y, algorithm.policy_action(y))
            total += reward.item()
        seen: list[Tensor] = []

        def search(objective: Any, draws: Any, memory: Tensor, seen: list[Tensor] = seen) -> Any:
            seen.append(objective(noise))
            return TruncatedCEM.search(planner(bound=None), objective, draws, memory)

        object.__setattr__(algorithm.searcher, "search", search)
        algorithm.plan(start, algorithm.memory.recall(torch.ones(1, 1, dtype=torch.bool)))
        found[name] = seen[0].item()
        assert found[name] == pytest.approx(total, abs=1e-4)
    assert found["INIT"] != pytest.approx(found["REPLAN"], abs=1e-6)


@each_method
def test_no_noise_is_the_policy_itself(name: str) -> None:
    """A planner that finds nothing leaves the policy's own action."""
    algorithm = built(name, planner=planner(bound=None, init_std=1e-9))
    observation, first = torch.randn(3, 4), torch.ones(3, 1, dtype=torch.bool)
    torch.testing.assert_close(algorithm.explore(observation, first), algorithm.policy_action(observation))
    other = built(name)
    assert not torch.allclose(other.explore(observation, first), other.policy_action(observation), atol=1e-3)


def test_uni_keeps_its_noise_and_sep_leaves_the_first_behind() -> None:
    for name in ("SEP", "UNI"):
        algorithm = built(name)
        search = algorithm.plan(torch.randn(2, 4), algorithm.memory.recall(torch.ones(2, 1, dtype=torch.bool)))[1]
        assert search.plan.shape == (2, H if name == "SEP" else 1, algorithm.search_dim)
        shifted = algorithm.shift(search.memory)
        if name == "UNI":
            assert torch.equal(shifted, search.memory) and shifted.any()
        else:
            assert torch.equal(shifted[:, :, :-1], search.memory[:, :, 1:]) and not shifted[:, :, -1].any()


# ---------------------------------------------------------------------- learning
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_avg_is_the_mean_of_the_noises_that_acted(variant: str) -> None:
    algorithm = built("SEP", variant=variant)
    before, noises, observation = algorithm.policy.network.weights.detach().clone(), [], torch.randn(2, 4)
    for i in range(3):
        algorithm.explore(observation, torch.full((2, 1), i == 0))
        noises.append(algorithm.noise_sum.clone())
    mean = algorithm.noise_sum / 6
    assert mean.abs().sum() > 0 and not torch.equal(noises[0], noises[1])
    algorithm.distill(TensorDict({}, [3]))
    expected = before + mean if variant == "paper" else mean
    torch.testing.assert_close(algorithm.policy.network.weights.detach(), expected)
    assert not algorithm.noise_sum.any() and algorithm.noise_count == 0


@pytest.mark.parametrize("name", ["REPLAN", "SEP"])
def test_bc_learns_the_executed_actions(name: str) -> None:
    options = {"distillation": "BC"} if name == "SEP" else {}
    algorithm = built(name, policy_epochs=200, policy_patience=200, policy_hidden_sizes=[5], **options)
    algorithm.policy.whitening.update(10 + torch.randn(400, 4))
    observation = 10 + torch.randn(400, 4)
    action = (0.5 * (observation[:, :1] - 10)).clamp(-1, 1)
    trial = TensorDict({"observation": observation, "action": action}, [400])
    algorithm.fitter = ModelFitter()  # there is no trainer to count steps
    before = algorithm.policy.loss(trial).item()
    algorithm.distill(trial)
    assert algorithm.policy.loss(trial).item() < 0.05 * before
    assert algorithm._notes["policy/cloning_error"] < 0.05 * before


@pytest.mark.parametrize(("name", "distillation"), [("INIT", None), ("REPLAN", None), ("SEP", "AVG"), ("UNI", "BC")])
def test_the_policy_learns_after_trials_that_were_planned(name: str, distillation: str | None) -> None:
    weights, counts = [], []

    algorithm = make_poplin(name, **({} if distillation is None else {"distillation": distillation}))
    fit_model = algorithm.fit_model

    def looks(replay: Any) -> None:
        fit_model(replay)
        weights.append(algorithm.policy.network.weights.detach().clone())
        counts.append(int(algorithm.policy.whitening.count))

    object.__setattr__(algorithm, "fit_model", looks)
    first: list[Tensor] = []
    build = algorithm.build

    def build_and_keep(spec: Any) -> None:
        build(spec)
        first.append(algorithm.policy.network.weights.detach().clone())

    object.__setattr__(algorithm, "build", build_and_keep)
    fit(algorithm, make_data())
    assert counts == [24, 36, 48, 60]  # real states, each of them once
    assert torch.equal(weights[0], first[0])  # nothing is learned from random actions
    assert all(not torch.equal(a, b) for a, b in pairwise(weights))


def test_both_are_evaluated_from_the_same_states(tmp_path: Path) -> None:
    """The starts of all four evaluation episodes are the same in both; what follows is not."""
    algorithm, data = make_poplin("REPLAN"), make_data()
    starts: dict[str, list[Tensor]] = {"": [], "policy": []}
    evaluate = data.evaluate

    def spy(name: str = "") -> Any:
        episodes = evaluate(name)
        starts[name].append(episodes["observation"][:, 0].clone())
        return episodes

    data.evaluate = spy
    trainer = fit(algorithm, data, logger=[CsvLogger(tmp_path)])
    assert len(starts[""]) == 2
    assert all(torch.equal(a, b) for a, b in zip(starts[""], starts["policy"], strict=True))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    planned, alone = ([float(row[name]) for row in rows if row[name]] for name in ("eval/return", "eval/policy_return"))
    assert len(planned) == len(alone) == 2 and all(a != b for a, b in zip(planned, alone, strict=True))
    assert {"eval/policy_return", "eval/policy_return_std"} <= trainer.callback_metrics.keys()
    assert data.evaluations() == ["", "policy"]


@each_method
def test_the_policy_alone_does_not_plan(name: str) -> None:
    algorithm = built(name)
    observation, first = torch.randn(3, 4), torch.ones(3, 1, dtype=torch.bool)
    state, rollouts = torch.get_rng_state(), algorithm._model_rollouts
    action = algorithm.further_policy("policy")(observation, first)
    torch.testing.assert_close(action, algorithm.policy_action(observation))
    assert torch.equal(torch.get_rng_state(), state) and algorithm._model_rollouts == rollouts


# ---------------------------------------------------------------------- resume
@pytest.mark.parametrize("rounds", [11, 12, 17])  # before and after a fit, in the middle of a trial
@pytest.mark.parametrize(
    ("name", "options"), [("INIT", {}), ("REPLAN", {}), ("SEP", {}), ("UNI", {"distillation": "BC"})]
)
def test_resume_gives_the_same_bits(name: str, options: dict[str, Any], rounds: int, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    whole, whole_data = make_poplin(name, **options), make_data()
    fit(whole, whole_data, log_every_n_steps=1000)
    with pytest.raises(Stop):
        fit(make_poplin(name, **options), make_data(), SaveAndStop(path, rounds), log_every_n_steps=1000)
    second, second_data = make_poplin(name, **options), make_data()
    fit(second, second_data, seed=12345, ckpt_path=path, log_every_n_steps=1000)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []
    assert whole._notes == second._notes


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"method": "SEP"}, "--model.method=SEP: expected INIT or REPLAN"),
        (
            {"planner": CEM(horizon=4)},
            "--model.planner=CEM: expected lit_mbrl.planners.TruncatedCEM with bound: null",
        ),
        (
            {"planner": planner()},
            "--model.planner=TruncatedCEM: expected lit_mbrl.planners.TruncatedCEM with bound: nu",
        ),
        ({"policy_lr": 0.0}, "--model.policy_lr=0.0: expected a number > 0"),
        ({"policy_holdout": 1.0}, "--model.policy_holdout=1.0: expected a number > 0 and < 1"),
        ({"policy_epochs": 0}, "--model.policy_epochs=0: expected an integer > 0"),
        ({"policy_hidden_sizes": [0]}, "--model.policy_hidden_sizes=.*: expected positive"),
    ],
)
def test_wrong_options_of_poplin_a(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        POPLINA(**options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"method": "INIT"}, "--model.method=INIT: expected SEP or UNI"),
        ({"distillation": "GAN"}, "--model.distillation=GAN: expected BC or AVG"),
        (
            {"distillation": "BC", "variant": "reference"},
            "--model.variant=reference: expected paper with model.distillation=BC",
        ),
    ],
)
def test_wrong_options_of_poplin_p(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        POPLINP(**options)


def test_the_papers_sizes_are_the_defaults() -> None:
    assert (POPLINA().planner.num_candidates, POPLINA().planner.init_std ** 2) == (500, 0.25)
    assert POPLINP().planner.init_std ** 2 == pytest.approx(0.1) and POPLINP().planner.min_variance == 0
    algorithm = POPLINP()
    algorithm.configure(Spec("toy", 17, 6))
    assert algorithm.search_dim == 17 * 32 + 32 + 32 * 6 + 6
