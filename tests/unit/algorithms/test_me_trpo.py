"""ME-TRPO: what it imagines, when it stops, and its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_mbrl.algorithms import METRPO
from lit_mbrl.app.cli import main
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import Spec
from lit_mbrl.models import EnsembleConfig
from lit_mbrl.training.recording import Recording
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import NO_WANDB, tiny
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

OBSERVATION, ACTIONS, MEMBERS = 3, 2, 4


def ensemble(members: int = MEMBERS, **options: Any) -> EnsembleConfig:
    sizes = {"num_members": members, "num_elites": members, "hidden_sizes": [8], "weight_decay": [0.0, 0.0]}
    return EnsembleConfig(**sizes, activation="relu", probabilistic=False, propagation="mean", **options)


def make(**options: Any) -> METRPO:
    small = {"hidden_sizes": [8], "horizon": 5, "rollouts": 20, "validation_freq": 2, "patience": 4}
    small |= {"validation_rollouts": 3, "model_batch_size": 8, "model_max_epochs": 2, "world_model": ensemble()}
    return METRPO(**(small | options))


def never(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return torch.zeros_like(following[..., :1], dtype=torch.bool)


def configured(rule: Any = never, **options: Any) -> METRPO:
    torch.manual_seed(0)
    algorithm = make(**options)
    algorithm.configure(Spec("made up", OBSERVATION, ACTIONS, terminated=rule))
    algorithm.note = lambda metrics: None  # there is no trainer
    return algorithm


# ---------------------------------------------------------------------- imagination
def constant_(algorithm: METRPO, changes: list[float], reward: float = 1.0) -> None:
    """Lets member i add `changes[i]` to every observation, and all of them pay `reward`."""
    networks = algorithm.world_model.dynamics.networks
    with torch.no_grad():
        for weight in networks.weights:
            weight.zero_()
        networks.biases[-1][..., :-1] = torch.tensor(changes).view(-1, 1, 1)
        networks.biases[-1][..., -1] = reward


def test_every_step_of_every_rollout_draws_a_model() -> None:
    """With members that move by 1 and by -1 no two rollouts stay together, and both are drawn equally often."""
    algorithm = configured(world_model=ensemble(2), rollouts=200, horizon=20)
    constant_(algorithm, [1.0, -1.0])
    frames = algorithm.imagine(torch.zeros(200, OBSERVATION))
    path = frames["observation"].view(200, 20, OBSERVATION)[..., 0]
    moves = path.diff(dim=1)
    assert set(moves.unique().tolist()) == {-1.0, 1.0}
    assert abs(moves.mean().item()) < 5 / (200 * 19) ** 0.5
    assert len(torch.unique(moves, dim=0)) > 190  # not one member per rollout, nor one per step


def test_frames_and_advantages_are_those_of_plain_sums() -> None:
    algorithm = configured(gamma=0.9, lmbda=0.8)
    algorithm.baseline.weights.normal_()
    before = algorithm.baseline.weights.clone()
    frames = algorithm.imagine(torch.randn(20, OBSERVATION))
    assert frames.batch_size == (100,) and algorithm._model_rollouts == 100
    observation, action = frames["observation"], frames["action"]
    log_prob, _ = algorithm.actor.log_prob_entropy(observation, action)
    torch.testing.assert_close(frames["log_prob"], log_prob)
    assert algorithm.divergence(frames).item() == pytest.approx(0, abs=1e-6)

    # The deterministic members' rewards are recomputed: the one that was drawn is the one that led to the next frame.
    dynamics = algorithm.world_model.dynamics
    predicted, _ = dynamics(observation, action.clamp(-1, 1))  # [E, n, O + 1]
    path, moved = observation.view(20, 5, -1), (observation + predicted[..., :-1]).view(MEMBERS, 20, 5, -1)
    drawn = (moved[:, :, :-1] - path[:, 1:]).abs().amax(-1).argmin(0)  # [20, 4]
    reward = predicted[..., -1].view(MEMBERS, 20, 5)[:, :, :-1].gather(0, drawn[None])[0]
    value = (algorithm.baseline.features(path, torch.arange(5).view(1, 5, 1).expand(20, 5, 1)) @ before).squeeze(-1)
    advantage = frames["advantage"].view(20, 5)
    # A_t = delta_t + gamma lambda A_{t+1}; the last step's reward is not seen in another frame.
    expected = reward + 0.9 * value[:, 1:] - value[:, :-1] + 0.9 * 0.8 * advantage[:, 1:]
    torch.testing.assert_close(advantage[:, :-1], expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(algorithm.baseline.weights, before)  # fitted for the next time


def test_returns_end_with_the_horizon() -> None:
    algorithm = configured(horizon=5)
    constant_(algorithm, [0.0] * MEMBERS, reward=2.0)
    frames = algorithm.imagine(torch.zeros(20, OBSERVATION))
    assert frames["advantage"].view(20, 5).tolist() == [[10.0, 8.0, 6.0, 4.0, 2.0]] * 20
    again = algorithm.imagine(torch.zeros(20, OBSERVATION))  # the baseline has seen these returns
    torch.testing.assert_close(again["advantage"], torch.zeros(100, 1), atol=1e-2, rtol=0)


def test_a_rollout_that_terminates_is_left() -> None:
    def beyond_two(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return following[..., :1] > 2.5

    algorithm = configured(beyond_two, horizon=5)
    constant_(algorithm, [1.0] * MEMBERS, reward=2.0)
    frames = algorithm.imagine(torch.zeros(20, OBSERVATION))  # 0, 1, 2 and then it is over
    assert frames["observation"][:, 0].view(20, 3).tolist() == [[0.0, 1.0, 2.0]] * 20
    assert frames["advantage"].view(20, 3).tolist() == [[6.0, 4.0, 2.0]] * 20
    assert algorithm.performance(torch.zeros(3, OBSERVATION)).tolist() == [6.0] * MEMBERS


def test_the_performance_is_each_model_s() -> None:
    algorithm = configured(gamma=0.9)
    starts, dynamics = torch.randn(7, OBSERVATION), algorithm.world_model.dynamics
    found = algorithm.performance(starts)
    for member in range(MEMBERS):
        total = 0.0
        for observation in starts[:, None]:
            for step in range(5):
                action = algorithm.act(observation)
                predicted, _ = dynamics(observation, action, torch.tensor([member]))
                total += 0.9**step * predicted[0, 0, -1].item() / len(starts)
                observation = observation + predicted[0, :, :-1]
        assert found[member].item() == pytest.approx(total, rel=1e-4, abs=1e-6)
    learned = configured(None)  # a learned termination: with half a chance per step half of what is left counts
    constant_(learned, [0.0] * MEMBERS)
    for parameter in learned.world_model.termination_model.parameters():
        torch.nn.init.zeros_(parameter)
    assert learned.performance(starts).tolist() == pytest.approx([1 + 0.5 + 0.25 + 0.125 + 0.0625] * MEMBERS)


def test_a_known_reward_is_not_predicted() -> None:
    def position(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return observation[..., :1] + 10 * following[..., :1]

    for kind, expected in ("auto", [10.0, 21.0, 32.0]), ("known", [10.0, 21.0, 32.0]), ("learned", [-1.0] * 3):
        algorithm = make(horizon=3, reward=kind, world_model=ensemble())
        algorithm.configure(Spec("made up", OBSERVATION, ACTIONS, terminated=never, reward=position))
        algorithm.note = lambda metrics: None
        constant_(algorithm, [1.0] * MEMBERS, reward=-1.0)
        returns = algorithm.imagine(torch.zeros(20, OBSERVATION))["advantage"].view(20, 3)
        assert returns[0].tolist() == [sum(expected[t:]) for t in range(3)]
        assert algorithm.performance(torch.zeros(2, OBSERVATION)).tolist() == [sum(expected)] * MEMBERS


# ---------------------------------------------------------------------- until the performance stops improving
class Replay:
    """Nothing but beginnings."""

    def first_observations(self) -> Tensor:
        return torch.arange(2.0)[:, None].expand(2, OBSERVATION)

    def sample_transitions(self, count: int) -> dict[str, Tensor]:
        return {"observation": torch.full((count, OBSERVATION), 9.0)}


def test_start_states_are_as_asked() -> None:
    drawn = configured().draw_starts(Replay(), 100)
    assert drawn.shape == (100, OBSERVATION) and set(drawn.unique().tolist()) == {0.0, 1.0}
    assert configured(start_states="replay").draw_starts(Replay(), 5).eq(9).all()


def scripted(algorithm: METRPO, monkeypatch: pytest.MonkeyPatch, *performances: list[float]) -> None:
    """The performances that are going to be found, the first at the start of the sweep."""
    coming = iter(performances)
    monkeypatch.setattr(algorithm, "performance", lambda starts: torch.tensor(next(coming), dtype=torch.float32))
    algorithm.begin_sweep(Replay())


def update(algorithm: METRPO, count: int) -> None:
    """As many updates, which move the policy."""
    algorithm.sweep.updates += count
    with torch.no_grad():
        for parameter in algorithm.actor.parameters():
            parameter.add_(0.1)


def test_it_stops_when_too_few_models_have_improved_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = configured(validation_freq=2, patience=4, improvement_share=0.7)
    scripted(algorithm, monkeypatch, [0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, -1], [1, 1, 1, 1], [5, 0, 0, 0])
    sweep = algorithm.sweep
    update(algorithm, 2)
    algorithm.validate_policy(False)  # three of four: improved
    assert (sweep.improved_at, sweep.performance.tolist(), sweep.stopped) == (2, [1, 1, 1, 0], False)
    best = {name: value.clone() for name, value in algorithm.actor.state_dict().items()}
    update(algorithm, 2)
    algorithm.validate_policy(False)  # two of four, against the policy that has improved
    assert (sweep.improved_at, sweep.stopped) == (2, False)
    assert not torch.equal(algorithm.actor.log_std, best["log_std"])  # it may go on a little
    update(algorithm, 2)
    algorithm.validate_policy(False)  # as good as the best is not better; four updates since
    assert sweep.stopped
    assert all(torch.equal(value, best[name]) for name, value in algorithm.actor.state_dict().items())


def test_it_never_collects_with_a_policy_that_has_not_improved(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, kept in ([-1.0] * 4, False), ([1.0] * 4, True):
        algorithm = configured(patience=100)
        scripted(algorithm, monkeypatch, [0.0] * 4, found)
        start = algorithm.actor.log_std.detach().clone()
        update(algorithm, 1)
        algorithm.validate_policy(last=True)
        assert torch.equal(algorithm.actor.log_std, start) is not kept


def test_the_standard_deviation_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for reset, expected in (True, 0.25), (False, 0.35):
        algorithm = configured(init_log_std=0.25, reset_std=reset)
        update(algorithm, 1)
        scripted(algorithm, monkeypatch, [0.0] * 4)
        assert algorithm.actor.log_std.tolist() == pytest.approx([expected] * ACTIONS)
        torch.testing.assert_close(algorithm.sweep.policy["log_std"], algorithm.actor.log_std)


# ---------------------------------------------------------------------- runs
def sweeps(**options: Any) -> OffPolicy:
    """Three collections of 20 frames, the first one random; after each of them seven training steps."""
    sizes = {"learning_starts": 20, "frames_per_batch": 20, "train_steps_per_collection": 7, "num_envs": 2}
    return make_data(**(sizes | options))


class Watch(Callback):
    """Which training steps have moved the policy, and what was noted."""

    def __init__(self) -> None:
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: Any, pl_module: METRPO, *args: Any) -> None:
        self._before = [parameter.detach().clone() for parameter in pl_module.actor.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: METRPO, *args: Any) -> None:
        pairs = zip(self._before, pl_module.actor.parameters(), strict=True)
        self.moved.append(not all(torch.equal(before, after) for before, after in pairs))


def test_a_run_has_its_collections_fits_and_updates() -> None:
    algorithm, data, fits, watch = make(patience=100), sweeps(), [], Watch()
    original = algorithm.fit_models
    algorithm.fit_models = lambda replay: fits.append(len(replay)) or original(replay)
    trainer = fit(algorithm, data, watch)
    assert fits == [20, 40, 60] and (data.env_steps, data.train_steps) == (60, 21)
    assert len(data.replay) == 60 and trainer.global_step == 21
    assert algorithm.sweep.updates == 7 and sum(watch.moved) >= 15
    assert data.replay.frames()["action"].abs().max() <= 1.0
    assert algorithm._model_rollouts == 21 * 20 * 5


def test_what_has_stopped_rests_until_the_next_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, watch = make(patience=2), Watch()
    monkeypatch.setattr(METRPO, "performance", lambda self, starts: torch.zeros(MEMBERS))
    trainer = fit(algorithm, sweeps(), watch, log_every_n_steps=1)
    # Two updates, after which the performance has not improved, and five training steps without any, three times.
    assert trainer.global_step == 6 and algorithm.sweep.stopped
    for collection in range(3):
        moved = watch.moved[7 * collection : 7 * collection + 7]
        assert moved[0] and not any(moved[2:])


@pytest.mark.parametrize("stop", [7, 10])
def test_resumes_exactly(stop: int, tmp_path: Path) -> None:
    """Before a collection and in the middle of a sweep, with observation statistics, and another seed at the resume."""

    def metrpo() -> METRPO:
        return make(normalize_observations=True)

    whole_data, whole, path = sweeps(), metrpo(), tmp_path / "a.ckpt"
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(metrpo(), sweeps(), SaveAndStop(path, stop))
    resumed, data = metrpo(), sweeps()
    fit(resumed, data, ckpt_path=path, seed=999)
    ours, theirs = everything(resumed, data), everything(whole, whole_data)
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key].float(), theirs[key].float())] == []
    assert resumed.sweep.updates == whole.sweep.updates
    assert torch.equal(resumed.sweep.performance, whole.sweep.performance)


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("horizon", 0, "an integer > 0"),
        ("improvement_share", 1.5, "a number between 0 and 1"),
        ("holdout_ratio", 1.0, "a number > 0 and < 1"),
        ("model_max_epochs", 0, "an integer > 0 or null"),
        ("start_states", "anywhere", "initial or replay"),
        ("max_kl", -1.0, "a number > 0"),
    ],
)
def test_options_out_of_range_are_one_line(option: str, value: Any, expected: str) -> None:
    with pytest.raises(OptionError, match=f"model.{option}={value}: expected {expected}"):
        METRPO(**{option: value})


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--model.horizon=21", "--model.horizon=21: expected at most 20, the steps of an episode of "),
        ("--data.train_steps_per_collection=null", "--data.train_steps_per_collection=None: expected an integer > 0: "),
        ("--model.reward=known --data.env.kwargs.frame_skip=4", "--model.reward=known: expected learned or auto: "),
        ("--data.utd_ratio=2", "--data.utd_ratio=2.0: expected 1 where data.train_steps_per_collection is given"),
        ("--data.env.name=CartPole-v1", "--data.env.name=CartPole-v1: expected an environment with continuous actions"),
        ("--trainer.devices=2", "--trainer.devices=2: expected 1 with METRPO"),
    ],
)
def test_mistakes_are_one_line_before_the_run(
    option: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    config = Path("conf/me_trpo.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    assert main(["fit", f"--config={config}", *tiny("me_trpo"), NO_WANDB, *option.split()]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: {line}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_metrics_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr(Recording, "note", lambda self, metrics: seen.update(metrics))
    fit(make(), sweeps())
    assert {"policy/kl", "policy/improved_share", "policy/imagined_return", "model/holdout_dynamics"} <= seen
