"""The off-policy loop: warm-up, update-to-data ratio, epochs, statistics, episode ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_mbrl.algorithms import SAC
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data


class Clock(Callback):
    """Notes the counters at every round and evaluation."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, int]] = []
        self.evaluations: list[int] = []
        self.returns: list[float] = []
        self.warmups: list[int] = []

    def on_warmup(self, trainer: Trainer, pl_module: Any) -> None:
        self.warmups.append(pl_module.env_steps)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self.rounds.append((pl_module.env_steps, pl_module.train_steps))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.evaluations.append(pl_module.env_steps)
        self.returns.append(float(trainer.callback_metrics["eval/return"]))


@pytest.mark.parametrize(
    ("utd_ratio", "frames_per_batch", "num_envs"), [(1, 1, 1), (4, 1, 1), (0.5, 1, 1), (0.3, 2, 2), (1, 6, 3)]
)
def test_update_to_data_ratio_is_exact(utd_ratio: float, frames_per_batch: int, num_envs: int) -> None:
    clock = Clock()
    data = make_data(utd_ratio=utd_ratio, frames_per_batch=frames_per_batch, num_envs=num_envs)
    fit(SAC(hidden_sizes=[8, 8]), data, clock)
    ratio = Fraction(str(utd_ratio))
    assert [rounds for _, rounds in clock.rounds] == list(range(1, int(ratio * 36) + 1))
    for env_steps, rounds in clock.rounds:
        # Enough frames for this round, and not one collection more than it needed.
        assert rounds <= ratio * (env_steps - 24) < rounds + ratio * frames_per_batch
    assert data.train_steps == int(ratio * 36)
    assert clock.warmups == list(range(frames_per_batch, 25, frames_per_batch))


def test_collections_may_have_a_number_of_training_steps() -> None:
    """The first ones right after the warm-up, and no collection before all of them are done."""
    clock, next_ones = Clock(), []
    data = make_data(total_frames=60, learning_starts=20, frames_per_batch=20, train_steps_per_collection=7)
    algorithm = SAC(hidden_sizes=[8, 8])
    original = algorithm.sample
    algorithm.sample = lambda data: next_ones.append(data.collects_next) or original(data)
    fit(algorithm, data, clock)
    assert clock.rounds == [(20 + 20 * (step // 7), step + 1) for step in range(21)]
    assert next_ones == [step % 7 == 6 for step in range(21)]
    assert clock.evaluations == [20, 40, 60]


def test_epochs_end_at_multiples_of_epoch_frames_and_at_the_end() -> None:
    clock = Clock()
    fit(SAC(hidden_sizes=[8, 8]), make_data(total_frames=70, epoch_frames=20, learning_starts=24), clock)
    assert clock.evaluations == [40, 60, 70]


def test_max_epochs_stops_earlier() -> None:
    clock = Clock()
    fit(SAC(hidden_sizes=[8, 8]), make_data(), clock, max_epochs=1)
    assert clock.evaluations == [40]


def test_evaluation_leaves_training_unchanged() -> None:
    weights = []
    for eval_episodes, epoch_frames in ((1, 30), (3, 8)):
        algorithm = SAC(hidden_sizes=[8, 8])
        fit(algorithm, make_data(eval_episodes=eval_episodes, epoch_frames=epoch_frames))
        weights.append(algorithm.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_same_seed_same_run_and_another_seed_another() -> None:
    runs = []
    for seed in (0, 0, 1):
        clock = Clock()
        fit(SAC(hidden_sizes=[8, 8]), make_data(), clock, seed=seed)
        runs.append(clock.returns)
    assert runs[0] == runs[1] != runs[2]


def test_warmup_is_uniform_then_the_policy_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAC, "explore", lambda self, observation, is_init: torch.full((len(observation), 1), 0.125))
    data = make_data()
    fit(SAC(hidden_sizes=[8, 8]), data)
    actions = data.replay.frames()["action"].flatten()
    assert (actions[24:] == 0.125).all()
    assert len(actions[:24].unique()) == 24 and actions[:24].min() < -0.5 and actions[:24].max() > 0.5


def test_acting_and_sampling_normalise_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics cover every stored observation, none twice; the policy and the losses see the same normalisation."""
    seen: dict[str, torch.Tensor] = {}
    data = make_data()

    def explore(self: SAC, observation: torch.Tensor, is_init: torch.Tensor) -> torch.Tensor:
        seen["acting"], seen["raw"] = observation, data.collector.get_carrier()["observation"]
        stored = data.replay.frames()["observation"]
        std = stored.double().std(0, correction=0).clamp(0.1, 10.0)
        torch.testing.assert_close(observation, ((seen["raw"] - stored.double().mean(0)) / std).float())
        return torch.zeros(len(observation), 1)

    def critic_loss(self: SAC, batch: Any) -> torch.Tensor:
        stored = data.replay.frames()["observation"]
        std = stored.double().std(0, correction=0).clamp(0.1, 10.0)
        # Undoing the normalisation gives frames that are in the replay.
        for observation in (batch["observation"], batch["next", "observation"][:0]):
            raw = observation * std + stored.double().mean(0)
            assert (torch.cdist(raw, stored.double()).amin(1) < 1e-4).all()
        return original(self, batch)

    original = SAC.critic_loss
    monkeypatch.setattr(SAC, "explore", explore)
    monkeypatch.setattr(SAC, "critic_loss", critic_loss)
    algorithm = SAC(hidden_sizes=[8, 8], normalize_observations=True)
    fit(algorithm, data)
    assert "acting" in seen
    assert float(algorithm.normalizer.count) == 60


def test_time_limits_are_stored_as_truncations_with_the_true_last_observation() -> None:
    data = make_data(max_episode_steps=12)
    fit(SAC(hidden_sizes=[8, 8]), data)
    stored = data.replay.frames()
    ends = stored["next", "truncated"].flatten().nonzero().flatten().tolist()
    assert ends == [11, 23, 35, 47, 59]
    assert not stored["next", "terminated"].any()
    following = stored["observation"][1:]
    inside = [i for i in range(59) if i not in ends]
    assert torch.equal(stored["next", "observation"][inside], following[inside])
    # Pendulum moves by at most a few degrees per step: the successor of a last frame is no reset observation.
    angle = torch.atan2(stored["observation"][:, 1], stored["observation"][:, 0])
    after = torch.atan2(stored["next", "observation"][:, 1], stored["next", "observation"][:, 0])
    turn = torch.remainder(after - angle + torch.pi, 2 * torch.pi) - torch.pi
    assert turn.abs().max() < 0.5


def test_episode_statistics_cross_batches() -> None:
    data = make_data(frames_per_batch=10, max_episode_steps=12, epoch_frames=60)
    fit(SAC(hidden_sizes=[8, 8]), data, log_every_n_steps=1000)
    rewards = data.replay.frames()["next", "reward"].flatten().double()
    returns = rewards[:60].view(5, 12).sum(1)
    metrics = data.pop_metrics()
    assert metrics["train/episode_length"] == 12
    assert metrics["train/return"] == pytest.approx(float(returns.mean()))
    assert data.pop_metrics() == {}


def test_an_environment_without_a_state_starts_new_episodes_and_says_so(tmp_path: Path) -> None:
    env, path = "BipedalWalker-v3", tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        fit(SAC(hidden_sizes=[8, 8]), make_data(env), SaveAndStop(path, 5))  # 29 frames: the third episode runs
    data = make_data(env)
    with pytest.warns(UserWarning, match="cannot restore its state"):
        fit(SAC(hidden_sizes=[8, 8]), data, ckpt_path=path)
    ends = data.replay.frames()["next", "truncated"].flatten().nonzero().flatten().tolist()
    assert ends == [11, 23, 28, 40, 52]


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(
        OptionError, match="--data.env.name=CartPole-v1: expected an environment with continuous actions"
    ):
        SAC().check(make_data("CartPole-v1").spec)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"total_frames": 0}, "data.total_frames"),
        ({"total_frames": 10, "learning_starts": 10}, "data.total_frames"),
        ({"learning_starts": 0}, "data.learning_starts"),
        ({"frames_per_batch": 3, "num_envs": 2}, "data.frames_per_batch"),
        ({"utd_ratio": 0.0}, "data.utd_ratio"),
        ({"utd_ratio": float("nan")}, "data.utd_ratio"),
        ({"train_steps_per_collection": 0}, "data.train_steps_per_collection"),
        ({"train_steps_per_collection": 5, "utd_ratio": 2.0}, "data.utd_ratio"),
        ({"train_steps_per_collection": 5, "frames_per_batch": 4}, "data.learning_starts"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"capacity": 1, "num_envs": 2, "frames_per_batch": 2}, "data.capacity"),
        ({"eval_episodes": 0}, "data.eval_episodes"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    options = {"total_frames": 100, "learning_starts": 10} | options
    with pytest.raises(OptionError, match=f"--{named}="):
        OffPolicy(EnvConfig("Pendulum-v1", num_envs=options.pop("num_envs", 1)), **options)
