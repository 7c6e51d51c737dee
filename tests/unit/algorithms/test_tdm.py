"""Temporal difference models: targets against a loop, what a batch is made of, and who gets which gradient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict
from torch import Tensor

from lit_mbrl.algorithms import TDM, TDMTD3
from lit_mbrl.data import OffPolicy
from lit_mbrl.data.buffers.relabelling import Hindsight
from lit_mbrl.envs import EnvConfig, Spec, describe
from lit_mbrl.training import compiled
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

G, A, X, B = 2, 3, 4, 12
PARTS = {"achieved_goal": slice(0, G), "desired_goal": slice(G, 2 * G), "observation": slice(2 * G, 2 * G + X)}
SPEC = Spec("made up", 2 * G + X, A, parts=PARTS)
POINT, MASS = "goals/PointMass", {"hidden_sizes": [8], "max_tau": 4}


def make_tdm(kind: type[TDM] | type[TDMTD3] = TDM, **options: Any) -> TDM | TDMTD3:
    torch.manual_seed(0)
    algorithm = kind(**({"hidden_sizes": [8], "max_tau": 3} | options))
    algorithm.check(SPEC)
    algorithm.configure(SPEC)
    for _, target in algorithm.targets():
        for parameter in target.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return algorithm


def make_batch(count: int = B) -> TensorDict:
    """Transitions, raw, with goals that stay and horizons of all lengths."""
    first, after = torch.randn(count, SPEC.observation_dim), torch.randn(count, SPEC.observation_dim)
    after[:, PARTS["desired_goal"]] = first[:, PARTS["desired_goal"]]
    following = {
        "observation": after,
        "reward": torch.full((count, 1), torch.nan),  # what the environment pays plays no part
        "terminated": torch.arange(count).unsqueeze(1) % 5 == 0,
    }
    tau = (torch.arange(count).unsqueeze(1) % 4).float()
    frames = {"observation": first, "action": torch.rand(count, A) * 2 - 1, "tau": tau, "next": following}
    return TensorDict(frames, [count])


def make_runs(kind: type[TDM] | type[TDMTD3] = TDM, **options: Any) -> tuple[TDM | TDMTD3, OffPolicy]:
    """A short run on point masses side by side, whose episodes have twelve steps."""
    algorithm = kind(**(MASS | options))
    return algorithm, make_data(POINT, num_envs=2, frames_per_batch=2, hindsight=Hindsight(goals=3))


# ---------------------------------------------------------------------- values and targets
@pytest.mark.parametrize("terminations", ["ignored", "horizon"])
@pytest.mark.parametrize("structure", ["difference", "plain"])
@pytest.mark.parametrize("kind", [TDM, TDMTD3])
def test_targets_and_the_loss_equal_a_plain_loop(kind: Any, structure: str, terminations: str) -> None:
    options = {"target_noise": 0.0} if kind is TDMTD3 else {}
    weights = [0.5, 2.0]
    algorithm = make_tdm(kind, structure=structure, terminations=terminations, goal_weights=weights, **options)
    algorithm.reward_scale = 1.0
    batch = algorithm.prepare_batch(make_batch())

    def q(member: Any, observation: Tensor, action: Tensor, goal: Tensor, tau: float) -> list[float]:
        output = member(torch.cat([observation, torch.tensor([tau / 3]), action]))
        if structure == "plain":
            return output.tolist()
        return [-weights[i] * abs(output[i].item() - goal[i].item()) for i in range(G)]

    target, total = algorithm.target(batch), 0.0
    for b in range(B):
        row, after, goal, tau = batch[b], batch[b]["next", "observation"], batch[b]["goal"], batch["tau"][b].item()
        over = tau == 0 or (terminations == "horizon" and row["next", "terminated"].item())
        action = algorithm.actor_target(torch.cat([after, torch.tensor([(tau - 1) / 3])]))
        every = [q(member, after, action, goal, tau - 1) for member in algorithm.critic_target.members]
        for i in range(G):
            far = weights[i] * abs(after[i].item() - goal[i].item())
            expected = -far if over else min(values[i] for values in every)
            assert target[b, i].item() == pytest.approx(expected, abs=1e-5)
        for member in algorithm.critic.members:
            values = q(member, row["observation"], row["action"], goal, tau)
            total += sum(0.5 * (values[i] - target[b, i].item()) ** 2 for i in range(G)) / (B * G)
    assert len(algorithm.critic.members) == (2 if kind is TDMTD3 else 1)
    assert algorithm.critic_loss(batch).item() == pytest.approx(total, rel=1e-5)


def test_td3_smooths_the_target_s_action() -> None:
    batch = make_batch()
    wide, none = make_tdm(TDMTD3, target_noise=1.0), make_tdm(TDMTD3, target_noise=0.0)
    later = batch["tau"].squeeze(1) > 0
    found = [algorithm.target(algorithm.prepare_batch(batch.clone())) for algorithm in (wide, none)]
    assert torch.equal(found[0][~later], found[1][~later])
    assert not torch.isclose(found[0][later], found[1][later]).all(1).any()


def test_the_scale_and_the_weights_are_factors_of_all_distances() -> None:
    batch, last = make_batch(), torch.zeros(B, 1)
    batch["tau"] = last
    one, scaled = make_tdm(), make_tdm(reward_scale=10.0, goal_weights=[0.0, 3.0])
    factors = torch.tensor([0.0, 30.0])
    near, far = (algorithm.target(algorithm.prepare_batch(batch.clone())) for algorithm in (one, scaled))
    torch.testing.assert_close(far, near * factors)
    achieved, goal = batch["next", "observation"][:, :G], batch["observation"][:, G : 2 * G]
    torch.testing.assert_close(near, -(achieved - goal).abs())


def test_what_is_reached_is_in_the_task_s_units_whatever_networks_see() -> None:
    algorithm, batch = make_tdm(normalize_observations=True), make_batch(400)
    algorithm.normalizer.update(5.0 * batch["observation"] + 3.0)
    raw = {key: 5.0 * batch[key] + 3.0 for key in ("observation", ("next", "observation"))}
    batch.update({"observation": raw["observation"], "next": {"observation": raw["next", "observation"]}})
    prepared = algorithm.prepare_batch(batch)
    assert prepared["observation"].std() < 1.5 < prepared["goal"].std()
    assert torch.equal(prepared["goal"], raw["observation"][:, G : 2 * G])
    assert torch.equal(prepared["next", "achieved"], raw["next", "observation"][:, :G])
    over = prepared["tau"].squeeze(1) == 0
    expected = -(prepared["next", "achieved"] - prepared["goal"]).abs()[over]
    torch.testing.assert_close(algorithm.target(prepared)[over], expected)
    # An output of 0 is the mean of what has been achieved, one of 1 a standard deviation more.
    mean, std = raw["observation"][:, :G].mean(0), raw["observation"][:, :G].std(0, correction=0)
    torch.testing.assert_close(algorithm.reached(torch.zeros(1, G))[0], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(algorithm.reached(torch.ones(1, G))[0], mean + std, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [1, 2])
def test_the_actor_minimises_the_norm_of_the_distances(norm: int) -> None:
    algorithm = make_tdm(TDMTD3, actor_norm=norm)
    batch = algorithm.prepare_batch(make_batch())
    seen = torch.cat([batch["observation"], batch["tau"] / 3], 1)
    reached = algorithm.critic.members[0](torch.cat([seen, algorithm.actor(seen)], 1))
    expected = torch.linalg.vector_norm(reached - batch["goal"], ord=norm, dim=1).mean()
    torch.testing.assert_close(algorithm.actor_loss(batch), expected)


# ---------------------------------------------------------------------- gradients
def test_gradients_of_both_losses_are_those_of_finite_differences() -> None:
    algorithm = make_tdm(hidden_sizes=[4], actor_norm=2).double()
    batch = make_batch().apply(lambda value: value.double() if value.is_floating_point() else value)
    batch = algorithm.prepare_batch(batch)
    for update in algorithm.update_list:
        parameters = list(update.parameters())
        gradients = torch.autograd.grad(update.loss(batch), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            index = int(gradient.abs().argmax())
            with torch.no_grad():
                flat = parameter.view(-1)
                values = []
                for step in (1e-6, -2e-6):
                    flat[index] += step
                    values.append(update.loss(batch).item())
                flat[index] += 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(gradient.view(-1)[index].item(), rel=1e-5, abs=1e-9)
            assert slope != 0.0


@pytest.mark.parametrize("kind", [TDM, TDMTD3])
def test_losses_reach_what_they_train_and_targets_nothing(kind: Any) -> None:
    algorithm = make_tdm(kind)
    found = {}
    for update in algorithm.update_list:
        algorithm.zero_grad(set_to_none=True)
        update.loss(algorithm.prepare_batch(make_batch())).backward()
        moved = [name for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        found[update.name] = {name.partition(".")[0] for name in moved}
    assert found == {"critic": {"critic"}, "actor": {"critic", "actor"}}
    assert [update.every for update in algorithm.update_list] == [1, 2 if kind is TDMTD3 else 1]


# ---------------------------------------------------------------------- batches
class Batches(Callback):
    """Keeps the batches of a run."""

    def __init__(self) -> None:
        self.seen: list[TensorDict] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["transitions"].clone())


def test_goals_come_from_the_same_episode_s_future_and_horizons_are_uniform() -> None:
    algorithm, data = make_runs()
    batches = Batches()
    fit(algorithm, data, batches)
    replay = data.replay
    frames, ends = replay.frames(), torch.from_numpy(replay._ends[: len(replay)])
    observations = frames["observation"]
    achieved, desired, state = (data.spec.parts[key] for key in ("achieved_goal", "desired_goal", "observation"))
    later = own = 0
    for row in TensorDict.cat(batches.seen):
        goal = row["observation"][desired]
        assert torch.equal(goal, row["next", "observation"][desired])
        matches = (observations[:, state] == row["observation"][state]).all(1) & (
            observations[:, achieved] == row["observation"][achieved]
        ).all(1)
        (slot,) = matches.nonzero().flatten().tolist()
        if torch.equal(goal, observations[slot, desired]):
            own += 1
            continue
        following = slot
        while not torch.equal(frames["next", "observation"][following, achieved], goal):
            assert not ends[following], "the goal was not achieved in the rest of the episode"
            following += 2  # of the same environment
        later += 1
    assert later / (later + own) == pytest.approx(0.75, abs=0.1) and own > 20
    counts = Counter(torch.cat([batch["tau"] for batch in batches.seen]).flatten().tolist())
    assert set(counts) == {0.0, 1.0, 2.0, 3.0, 4.0}  # of 288: each is missed with (4/5)^288
    assert max(counts.values()) < 2 * min(counts.values())


def test_the_horizon_falls_while_collecting_and_begins_anew_with_each_episode() -> None:
    algorithm, data = make_runs()
    seen: list[tuple[bool, float]] = []
    choose, explore = algorithm.choose, algorithm.explore

    def watched_explore(observation: Tensor, is_init: Tensor) -> Tensor:
        seen.append((bool(is_init[0]), -1.0))
        return explore(observation, is_init)

    def watched_choose(observation: Tensor, tau: Tensor) -> Tensor:
        if seen and seen[-1][1] == -1.0:  # not an evaluation
            seen[-1] = (seen[-1][0], tau[0].item())
        return choose(observation, tau)

    algorithm.choose, algorithm.explore = watched_choose, watched_explore
    fit(algorithm, data)
    # The warm-up's twelve steps are exactly an episode of each environment.
    assert len(seen) == 18 and [first for first, _ in seen] == [i % 12 == 0 for i in range(18)]
    assert [tau for _, tau in seen] == [4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 4, 3, 4, 3, 2, 1, 0, 4]


def test_the_policy_is_told_goal_and_horizon() -> None:
    algorithm = make_tdm()
    observation = torch.randn(5, SPEC.observation_dim)
    other = observation.clone()
    other[:, PARTS["desired_goal"]] += 1.0
    tau = torch.ones(5, 1)
    action = algorithm.choose(observation, tau)
    assert not torch.isclose(action, algorithm.choose(other, tau)).all(1).any()
    assert not torch.isclose(action, algorithm.choose(observation, tau + 1)).all(1).any()


def test_evaluations_count_down_by_themselves_and_measure_the_last_distance() -> None:
    algorithm, data = make_runs()
    trainer = fit(algorithm, data)
    before = algorithm.countdown.left.clone()
    first, second = data.evaluate(), data.evaluate()
    assert torch.equal(algorithm.countdown.left, before)
    assert torch.equal(first["action"], second["action"]) and first.shape == (2, 12)
    goal, achieved = (first["next", "observation"][:, -1, part] for part in (slice(2, 4), slice(0, 2)))
    metric = trainer.callback_metrics["eval/final_distance"]
    torch.testing.assert_close(metric, (goal - achieved).square().sum(-1).sqrt().mean())


# ---------------------------------------------------------------------- runs
@pytest.mark.parametrize("kind", [TDM, TDMTD3])
@pytest.mark.parametrize("acting", ["actor", "mpc_constrained"])
def test_a_resumed_run_is_the_same_bit_for_bit(kind: Any, acting: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"acting": acting, "exploration": "ou", "normalize_observations": True}
    first = make_runs(kind, **options)
    fit(*first)
    with pytest.raises(Stop):
        fit(*make_runs(kind, **options), SaveAndStop(tmp_path / "model.ckpt", 13))
    second = make_runs(kind, **options)
    fit(*second, ckpt_path=tmp_path / "model.ckpt", seed=1)
    expected, got = everything(*first), everything(*second)
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


@pytest.mark.parametrize("kind", [TDM, TDMTD3])
def test_a_compiled_run_takes_the_eager_one_s_steps(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "inductor", lambda graph, example: graph)
    found = []
    for compile in (False, True):
        algorithm, data = make_runs(kind, normalize_observations=True, huber_delta=1.0)
        algorithm.compile_option = compile
        fit(algorithm, data)
        assert algorithm.compile_option is compile  # it was possible
        found.append(everything(algorithm, data))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=2e-4, atol=2e-4)


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"structure": "plain", "acting": "mpc_direct"}, r"model\.structure=plain: expected difference with"),
        ({"structure": "plain", "actor_norm": 2}, r"model\.actor_norm=2: expected 1 with"),
        ({"max_tau": -1}, r"model\.max_tau=-1: expected an integer >= 0"),
        ({"goal_weights": [0.0, 0.0]}, r"model\.goal_weights=\[0\.0, 0\.0\]: expected numbers >= 0, not all of them 0"),
        ({"goal_weights": [1.0]}, r"model\.goal_weights=\[1\.0\]: expected 2 numbers"),
        ({"acting": "mpc"}, r"model\.acting=mpc: expected actor"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        make_tdm(**options)


def test_an_environment_without_goals_is_refused() -> None:
    with pytest.raises(OptionError, match=r"data\.env\.name=Pendulum-v1: expected an environment that observes"):
        TDM().check(describe(EnvConfig("Pendulum-v1")))
    uneven = Spec("uneven", 3, 1, parts={"achieved_goal": slice(0, 1), "desired_goal": slice(1, 3)})
    with pytest.raises(OptionError, match="of one length, which TDM needs"):
        TDM().check(uneven)


def test_several_tasks_are_refused() -> None:
    data = make_data(POINT)
    data.env.other_tasks = {"tdm/Pusher": 1}
    with pytest.raises(OptionError, match=r"data\.env\.other_tasks"):
        TDM().check_data(data)
