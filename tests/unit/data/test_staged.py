"""Runs of several stages: whose training steps are due when, which updates take part, and exact resume within each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.data.staged import StagedSchedule
from lit_mbrl.training.stages import Stage
from lit_mbrl.training.update import Update
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts

STAGES = (
    Stage("collect", env_steps=24, utd_ratio=Fraction(0)),
    Stage("see", updates=("encoder",), train_steps=10, epoch_steps=4),
    Stage("act", updates=("critic", "actor", "alpha"), train_steps=3, env_steps=36),
)


class SeesThenActs(SAC):
    """SAC in the code of an autoencoder of observations, which is trained first, on data of random actions."""

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.encoder = nn.Linear(spec.observation_dim, spec.observation_dim)
        self.decoder = nn.Linear(spec.observation_dim, spec.observation_dim)
        self.started: list[str] = []
        self.taken: list[tuple[int, str]] = []

    def updates(self) -> Iterator[Update]:
        yield Update("encoder", [self.encoder, self.decoder], self.reconstruction, 1e-2)
        yield from super().updates()

    def reconstruction(self, batch: TensorDictBase) -> Tensor:
        seen = batch["observation"]
        return (self.decoder(self.encoder(seen)) - seen).square().mean()

    def stages(self, data: Any) -> Sequence[Stage]:
        return STAGES

    def start_stage(self, data: Any, name: str) -> None:
        self.started.append(f"{name} {data.env_steps} {data.train_steps}")
        if name == "act":
            self.encoder.requires_grad_(False)

    def gradient_step(self, update: Update, *args: Any) -> Tensor:
        self.taken.append((self.train_steps, update.name))
        return super().gradient_step(update, *args)

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        return super().actor_loss({"observation": self.encoder(batch["observation"])})


ROLLOUTS = (
    Stage("play", (), env_steps=40),
    Stage("see", ("encoder",), train_steps=7, epoch_steps=5),
    Stage("act", ("ppo",), env_steps=60),
)


class PlaysThenLearns(PPO):
    """PPO beside an autoencoder that is trained on a replay of what an untrained policy did."""

    def __init__(self, stages: Sequence[Stage] = ROLLOUTS) -> None:
        super().__init__(hidden_sizes=[8])
        self.parts, self.started, self.taken = stages, [], []

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.seer, self.decoder = (nn.Linear(spec.observation_dim, spec.observation_dim) for _ in range(2))

    def reconstruction(self, batch: TensorDictBase) -> Tensor:
        return (self.decoder(self.seer(batch["observation"])) - batch["observation"]).square().mean()

    def updates(self) -> Iterator[Update]:
        yield Update("encoder", [self.seer, self.decoder], self.reconstruction, 1e-2, "seen")
        yield from super().updates()

    def stages(self, data: Any) -> Sequence[Stage]:
        return self.parts

    def add_buffers(self, data: Any) -> None:
        data.add_replay("seen", 40, "data.total_frames")

    def start_stage(self, data: Any, name: str) -> None:
        self.started.append(f"{name} {data.env_steps} {data.train_steps}")

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        super().after_collect(data, frames)
        data.buffers["seen"].extend(frames)

    def sample(self, data: Any) -> dict[str, Any]:
        sees = data.update_schedule.stage.name == "see"
        seen = data.buffers["seen"].sample_transitions(4) if sees else None
        return {"seen": seen} | ({"transitions": None} if sees else super().sample(data))

    def gradient_step(self, update: Update, *args: Any) -> Tensor:
        self.taken.append((self.train_steps, update.name))
        return super().gradient_step(update, *args)


def test_stages_of_rollouts_are_whole_ones() -> None:
    algorithm, data = PlaysThenLearns(), make_rollouts(total_frames=100)
    order: list[Tensor] = []
    original = data.minibatch_index
    data.minibatch_index = lambda: order.append(original()) or order[-1]
    fit(algorithm, data)
    # Two rollouts of ten training steps without an update, then seven without a rollout, then three rollouts of ten.
    assert algorithm.started == ["play 0 0", "see 40 21", "act 40 27"]
    expected = [(step, "encoder") for step in range(21, 28)] + [(step, "ppo") for step in range(28, 58)]
    assert algorithm.taken == expected
    assert (data.env_steps, data.train_steps) == (100, 57) and len(data.buffers["seen"]) == 40
    for epoch in range(0, 50, 5):  # each frame of a rollout once in an epoch
        assert sorted(torch.cat(order[epoch : epoch + 5]).tolist()) == list(range(20))


@pytest.mark.parametrize("at", [5, 10, 20, 24, 27, 33, 57 - 1])
def test_a_run_on_rollouts_resumes_exactly_in_every_stage(tmp_path: Path, at: int) -> None:
    whole, data = PlaysThenLearns(), make_rollouts(total_frames=100)
    fit(whole, data)
    cut = PlaysThenLearns()
    with pytest.raises(Stop):
        fit(cut, make_rollouts(total_frames=100), SaveAndStop(tmp_path / "cut.ckpt", at))
    rest, rest_data = PlaysThenLearns(), make_rollouts(total_frames=100)
    fit(rest, rest_data, seed=1, ckpt_path=tmp_path / "cut.ckpt")
    assert cut.started + rest.started == whole.started
    first, second = everything(whole, data), everything(rest, rest_data)
    assert not [key for key in first if not torch.equal(first[key], second[key])]


def test_training_steps_are_due_stage_by_stage() -> None:
    schedule = StagedSchedule(STAGES, 20, Fraction(1, 2))
    assert [schedule.train_steps_due(n) for n in (0, 23, 24, 25, 26, 59, 60)] == [0, 0, 13, 13, 14, 30, 31]
    # See: every four; act: after its first three, at 40 and 60 environment steps.
    assert list(schedule._epoch_ends()) == [4, 8, 10, 13, 21, 31]
    assert schedule.epochs() == 6


def test_stages_follow_each_other_and_only_their_updates_take_part() -> None:
    algorithm, data = SeesThenActs(hidden_sizes=[8]), make_data()
    fit(algorithm, data)
    assert algorithm.started == ["collect 0 0", "see 24 1", "act 24 11"]
    expected = [(step, "encoder") for step in range(1, 11)]
    expected += [(step, name) for step in range(11, 50) for name in ("critic", "actor", "alpha")]
    assert algorithm.taken == expected
    assert (data.env_steps, data.train_steps) == (60, 10 + 3 + 36)


def test_an_untrained_part_stays_as_it_is() -> None:
    algorithm = SeesThenActs(hidden_sizes=[8])
    with pytest.raises(Stop):
        fit(algorithm, make_data(), SaveAndStop(Path("/dev/null"), 10))
    weights = {name: value.clone() for name, value in algorithm.state_dict().items()}
    other = SeesThenActs(hidden_sizes=[8])
    fit(other, make_data())
    for name, value in other.state_dict().items():
        if name.startswith(("encoder", "decoder")):
            assert torch.equal(value, weights[name]), name  # the acting stage leaves it alone
        if name.startswith("actor") and value.ndim == 2:
            assert not torch.equal(value, weights[name]), name


@pytest.mark.parametrize("at", [3, 10, 11, 12, 30])
def test_a_run_resumes_exactly_in_every_stage(tmp_path: Path, at: int) -> None:
    whole, data = SeesThenActs(hidden_sizes=[8]), make_data()
    fit(whole, data)
    cut = SeesThenActs(hidden_sizes=[8])
    with pytest.raises(Stop):
        fit(cut, make_data(), SaveAndStop(tmp_path / "cut.ckpt", at))
    rest, rest_data = SeesThenActs(hidden_sizes=[8]), make_data()
    fit(rest, rest_data, seed=1, ckpt_path=tmp_path / "cut.ckpt")
    assert cut.started + rest.started == whole.started
    first, second = everything(whole, data), everything(rest, rest_data)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_other_stages_than_the_checkpoint_s_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop):
        fit(SeesThenActs(hidden_sizes=[8]), make_data(), SaveAndStop(tmp_path / "cut.ckpt", 5))
    fewer = (STAGES[0], Stage("see", updates=("encoder",), train_steps=9), STAGES[2])
    monkeypatch.setattr(SeesThenActs, "stages", lambda self, data: fewer)
    with pytest.raises(OptionError, match=r"expected a run of the stages \['collect \(0 \+ 24 x 0\)', 'see \(9 \+ 0"):
        fit(SeesThenActs(hidden_sizes=[8]), make_data(), ckpt_path=tmp_path / "cut.ckpt")


def test_what_does_not_add_up_is_told_before_the_run() -> None:
    with pytest.raises(OptionError, match=r"data.total_frames=70: expected 60, the environment steps of its stages"):
        fit(SeesThenActs(hidden_sizes=[8]), make_data(total_frames=70))
    with pytest.raises(OptionError, match=r"data.total_frames=24: expected 20 times a whole number, .*, collect too"):
        fit(PlaysThenLearns(STAGES), make_rollouts())
    with pytest.raises(ValueError, match="different names"):
        StagedSchedule([STAGES[1], STAGES[1]], 20, Fraction(1))
    with pytest.raises(ValueError, match="the last stage, collect, has no training step"):
        StagedSchedule([STAGES[1], STAGES[0]], 20, Fraction(1))
