"""Rollouts: what is collected, how minibatches are cut, progress, statistics across borders, exact resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_mbrl.algorithms import PPO, SAC, Algorithm, EntropyBonusPPO, FullMaxEntPPO, MaxEntBonusPPO, MaxEntPPO
from lit_mbrl.data import OnPolicy
from lit_mbrl.data.base import EnvDataModule
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts

SMALL: dict[str, Any] = {"hidden_sizes": [8]}
ALGORITHMS = [PPO, EntropyBonusPPO, MaxEntPPO, MaxEntBonusPPO, FullMaxEntPPO]


class Watch(Callback):
    """Notes progress, and of every minibatch the rows that are in it."""

    def __init__(self) -> None:
        self.progress: list[tuple[int, int]] = []
        self.evaluations: list[int] = []
        self.batches: list[torch.Tensor] = []
        self.rollouts: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.progress.append((pl_module.env_steps, pl_module.train_steps))
        self.batches.append(batch["transitions"]["observation"].clone())
        self.rollouts.append(trainer.datamodule.rollout["observation"].flatten(0, 1).clone())

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.evaluations.append(pl_module.env_steps)


def test_every_frame_is_in_a_minibatch_exactly_once_per_epoch() -> None:
    watch = Watch()
    fit(PPO(**SMALL), make_rollouts(), watch)
    assert len(watch.batches) == 3 * 2 * 5
    orders = []
    for epoch in range(6):
        served = torch.cat(watch.batches[5 * epoch : 5 * epoch + 5])
        rollout = watch.rollouts[5 * epoch]
        same = (served[:, None] == rollout[None]).all(-1)
        assert same.sum(0).tolist() == same.sum(1).tolist() == [1] * 20
        orders.append(same.int().argmax(1))
    assert all(not torch.equal(first, second) for first, second in pairwise(orders))
    assert not torch.equal(watch.rollouts[0], watch.rollouts[10])


def test_rounds_follow_on_rollouts_and_epochs_end_with_them() -> None:
    watch = Watch()
    data = make_rollouts(total_frames=79, epoch_frames=30)
    fit(PPO(**SMALL), data, watch)
    assert watch.progress == [(20 * (n // 10 + 1), n + 1) for n in range(30)]
    assert watch.evaluations == [20, 60]  # at 30 one rollout is over, at 60 three are; a fourth would end beyond 79
    assert (data.env_steps, data.train_steps) == (60, 30)


def test_statistics_of_episodes_cross_rollouts() -> None:
    """CartPole pays 1 per step, and 4-step time limits end none of 10-step rollouts' borders."""
    data = make_rollouts(max_episode_steps=4)
    fit(PPO(**SMALL), data, log_every_n_steps=1000)
    assert [length for _, length in data.episode_statistics.ended] == [4] * 14  # 30 steps of each environment
    assert data.pop_metrics() == {"train/return": 4.0, "train/episode_length": 4.0}


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_rollout_s_advantages_are_those_of_a_loop_over_its_frames(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncations bootstrap with the true last observation, terminations with nothing, and rollouts' ends bootstrap."""
    seen: list[tuple[Any, Any, dict]] = []
    original = PPO.prepare_rollout

    def prepare_rollout(self: PPO, frames: Any) -> Any:
        raw = frames.clone()
        weights = {key: value.clone() for key, value in self.state_dict().items()}
        rollout = original(self, frames)
        seen.append((raw, rollout.clone(), weights))
        return rollout

    monkeypatch.setattr(PPO, "prepare_rollout", prepare_rollout)
    algorithm = PPO(gamma=0.9, lmbda=0.8, **SMALL)
    fit(algorithm, make_rollouts(env, max_episode_steps=12, rollout_steps=30, total_frames=180))
    ends = [0, 0]
    for raw, rollout, weights in seen:
        algorithm.load_state_dict(weights)
        with torch.no_grad():
            value, after = (algorithm.critic(x).squeeze(-1) for x in (raw["observation"], raw["next", "observation"]))
            log_prob, _, _ = algorithm.evaluate(raw["observation"], raw["action"])
        terminated, truncated = raw["next", "terminated"].squeeze(-1), raw["next", "truncated"].squeeze(-1)
        ends = [ends[0] + int(terminated.sum()), ends[1] + int((truncated & ~terminated).sum())]
        for n in range(2):
            running = 0.0
            for t in reversed(range(30)):
                bootstrap = 0.0 if terminated[n, t] else 0.9 * after[n, t].item()
                delta = raw["next", "reward"][n, t].item() + bootstrap - value[n, t].item()
                running = delta + (0.0 if terminated[n, t] or truncated[n, t] else 0.9 * 0.8 * running)
                assert rollout["advantage"][t, n].item() == pytest.approx(running, abs=1e-5)
        torch.testing.assert_close(rollout["log_prob"], log_prob.transpose(0, 1))
    assert ends[1] > 0 and (ends[0] > 0 or env == "Pendulum-v1")


def test_the_environment_gets_actions_within_its_bounds_and_the_rollout_keeps_the_drawn_ones() -> None:
    seen: list[torch.Tensor] = []
    algorithm, data = PPO(init_log_std=1.5, **SMALL), make_rollouts("Pendulum-v1")
    advance = EnvDataModule.collect_transitions

    def collect_transitions(self: EnvDataModule) -> Any:
        env = self.collector.env
        original = env.advance
        env.advance = lambda action: (seen.append(torch.tensor(action)), original(action))[1]
        try:
            return advance(self)
        finally:
            env.advance = original

    data.collect_transitions = collect_transitions.__get__(data)
    fit(algorithm, data)
    drawn, executed = data.rollout["action"], torch.stack(seen[-10:])
    assert drawn.abs().max() > 1
    assert torch.equal(executed, drawn.clamp(-1, 1))


def test_statistics_stand_still_during_a_rollout_and_its_epochs() -> None:
    data, watch = make_rollouts(), Watch()
    algorithm = PPO(normalize_observations=True, **SMALL)
    counts: list[float] = []
    watch.on_train_batch_end = lambda *args: counts.append(float(algorithm.normalizer.count))
    fit(algorithm, data, watch)
    assert counts == [20.0] * 10 + [40.0] * 10 + [60.0] * 10
    # Ratios start at 1: rows are normalised as they were for the policy that acted on them.
    rollout = data.rollout
    assert rollout["observation"].abs().max() < 20


@pytest.mark.parametrize("make", ALGORITHMS)
def test_resume_in_the_middle_of_an_epoch(make: type[Algorithm], tmp_path: Path) -> None:
    compare(make, 13, tmp_path / "run.ckpt")


@pytest.mark.parametrize("rounds", [1, 10, 15, 29])  # the first, a rollout's last, an epoch's last, the last but one
def test_resume_at_borders(rounds: int, tmp_path: Path) -> None:
    compare(PPO, rounds, tmp_path / "run.ckpt")


@pytest.mark.parametrize("env", ["Pendulum-v1", "HalfCheetah-v5"])
def test_resume_with_continuous_actions(env: str, tmp_path: Path) -> None:
    compare(MaxEntPPO, 13, tmp_path / "run.ckpt", env=env)


def test_resume_after_the_epochs_were_ended_early(tmp_path: Path) -> None:
    compare(PPO, 13, tmp_path / "run.ckpt", target_kl=1e-6)


def compare(make: Any, rounds: int, path: Path, env: str = "CartPole-v1", **options: Any) -> None:
    options |= {"normalize_observations": True, "scale_rewards": True, "anneal_lr": True, **SMALL}
    whole, whole_data = make(**options), make_rollouts(env)
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(make(**options), make_rollouts(env), SaveAndStop(path, rounds))
    second, second_data = make(**options), make_rollouts(env)
    fit(second, second_data, seed=12345, ckpt_path=path)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == found.keys()
    assert not [key for key in expected if not torch.equal(expected[key].float(), found[key].float())]


def test_a_checkpoint_at_the_end_of_a_rollout_does_not_hold_it(tmp_path: Path) -> None:
    for rounds, held in ((10, False), (11, True)):
        path = tmp_path / f"{rounds}.ckpt"
        with pytest.raises(Stop):
            fit(PPO(**SMALL), make_rollouts(), SaveAndStop(path, rounds))
        assert ("rollout" in torch.load(path, weights_only=True)["OnPolicy"]) is held


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"total_frames": 0}, "data.total_frames"),
        ({"total_frames": 19}, "data.total_frames"),
        ({"epoch_frames": 0}, "data.epoch_frames"),
        ({"rollout_steps": 0}, "data.rollout_steps"),
        ({"num_epochs": 0}, "data.num_epochs"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"batch_size": 3}, "data.batch_size"),
        ({"batch_size": 40}, "data.batch_size"),
        ({"eval_episodes": 0}, "data.eval_episodes"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    sizes = {"total_frames": 60, "rollout_steps": 10, "batch_size": 4} | options
    with pytest.raises(OptionError, match=f"--{named}="):
        OnPolicy(EnvConfig("CartPole-v1", num_envs=2), **sizes).split_across_ranks(1)


def test_several_devices_share_a_minibatch() -> None:
    data = make_rollouts()
    data.split_across_ranks(2)
    assert data.update_schedule.frames_per_rollout == 40 and data.update_schedule.train_steps_per_rollout == 20
    with pytest.raises(OptionError, match="--data.batch_size=5: expected a divisor of the 40 frames .*a multiple of 2"):
        make_rollouts(batch_size=5).split_across_ranks(2)
    make_rollouts(batch_size=40).split_across_ranks(2)  # more than one device has


def test_algorithms_and_data_that_do_not_belong_together() -> None:
    with pytest.raises(OptionError, match="--data=OnPolicy: expected lit_mbrl.data.OffPolicy for SAC"):
        make_rollouts("Pendulum-v1").check_algorithm(SAC())
    with pytest.raises(OptionError, match="--data=OffPolicy: expected lit_mbrl.data.OnPolicy for PPO"):
        make_data().check_algorithm(PPO())
