"""Sequences: schedule, batches, carried states, evaluation and exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_mbrl.algorithms import SAC
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.data import SequenceReplay
from lit_mbrl.data.buffers.episodes import frame_bytes
from lit_mbrl.envs import EnvConfig, PixelConfig
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data
from tests.helpers.sequence_learner import LIGHT, Remembers, make_sequences


class Frozen(Remembers):
    """Acts without noise and never learns to act."""

    def explore(self, observation: torch.Tensor, is_init: torch.Tensor) -> torch.Tensor:
        mean = observation.flatten(1).float().mean(1, keepdim=True) / 255
        return torch.sin(1000 * mean).expand(-1, self.actor.out_features)


class Watch(Callback):
    """Keeps batches and progress."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.progress: list[tuple[int, int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)
        self.progress.append((pl_module.env_steps, pl_module.train_steps))


def test_batches_are_sequences_of_bytes() -> None:
    watch, data = Watch(), make_sequences(num_envs=2)
    fit(Remembers(), data, watch)
    for batch in watch.batches:
        assert batch.keys() == {"sequences"}
        sequences = batch["sequences"]
        assert sequences.batch_size == (1, 3, 4)
        assert sequences["observation"].shape == (1, 3, 4, 3, 8, 8)
        assert sequences["observation"].dtype == torch.uint8
        assert sequences["action"].shape == (1, 3, 4, 3)
        step = sequences["observation"][..., 0, 0, 0].float()
        assert torch.equal(sequences["reward"][..., 0], step)  # the toy's reward is its step
        assert torch.equal(sequences["is_first"][..., 0], step == 0)
        taken = sequences["observation"][..., 1, 0, 0].long()  # the picture shows the action that led to it, from 1 on
        expected = torch.nn.functional.one_hot(taken, 4)[..., 1:].float()
        assert torch.equal(sequences["action"], expected)
        assert torch.equal(sequences["terminated"][..., 0], step == 5)


@pytest.mark.parametrize("pretrain_steps", [0, 7])
def test_the_schedule_is_dreamer_s(pretrain_steps: int) -> None:
    """Rounds after the warm-up, then `utd_ratio * frames_per_batch` after every collection."""
    watch, data = Watch(), make_sequences(pretrain_steps=pretrain_steps, frames_per_batch=12)
    fit(Remembers(), data, watch)
    steps = [env_steps for env_steps, _ in watch.progress]
    assert [steps.count(at) for at in (24, 36, 48, 60)] == [pretrain_steps, 6, 6, 6]
    assert [rounds for _, rounds in watch.progress] == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("options", [{}, {"num_envs": 2, "storage": "memmap", "pretrain_steps": 5, "capacity": 30}])
@pytest.mark.parametrize("rounds", [3, 11])
def test_resume_is_exact(options: dict[str, Any], rounds: int, tmp_path: Path) -> None:
    whole, whole_data = Remembers(), make_sequences(LIGHT, **options)
    fit(whole, whole_data, default_root_dir=tmp_path / "whole")
    run = {"default_root_dir": tmp_path / "run"}
    with pytest.raises(Stop):
        fit(Remembers(), make_sequences(LIGHT, **options), SaveAndStop(tmp_path / "run.ckpt", rounds), **run)
    second, second_data = Remembers(), make_sequences(LIGHT, **options)
    fit(second, second_data, seed=12345, ckpt_path=tmp_path / "run.ckpt", **run)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []
    assert torch.equal(whole.carried.state, second.carried.state)


def test_resume_from_the_files_beside_the_checkpoints(tmp_path: Path) -> None:
    on = {"enable_checkpointing": None}
    whole, whole_data = Remembers(), make_sequences()
    fit(whole, whole_data)
    fit(Remembers(), make_sequences(), Checkpoint(), max_epochs=1, default_root_dir=tmp_path, **on)
    assert list((tmp_path / "checkpoints" / "replay").glob("*.pt"))
    second, second_data = Remembers(), make_sequences()
    options = {"default_root_dir": tmp_path / "second", "ckpt_path": tmp_path / "checkpoints" / "last.ckpt"}
    fit(second, second_data, Checkpoint(), seed=7, **options, **on)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []


def test_an_evaluation_has_a_memory_of_its_own() -> None:
    weights = []
    for epoch_frames in (8, 60):
        algorithm, data = Remembers(), make_sequences(epoch_frames=epoch_frames)
        fit(algorithm, data)
        weights.append(algorithm.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0] if "extra" not in key)
    assert torch.equal(weights[0]["carried._extra_state"], weights[1]["carried._extra_state"])


def test_the_first_evaluation_episode_can_be_looked_at() -> None:
    data = make_sequences()
    fit(Remembers(), data)
    sequence = data.eval_episode
    assert sequence is not None
    step = sequence["observation"][0, :, 0, 0, 0].float()
    assert step.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(sequence["reward"][0, :, 0], step)
    taken = sequence["observation"][0, :, 1, 0, 0].long()
    assert torch.equal(sequence["action"][0], torch.nn.functional.one_hot(taken, 4)[:, 1:].float())
    assert sequence["is_first"][0, :, 0].tolist() == [True] + 4 * [False]


def test_evaluations_keep_no_images() -> None:
    data = make_sequences()
    fit(Remembers(), data)
    assert ("next", "observation") not in data.evaluate().keys(True) and "observation" not in data.evaluate()


def test_vectors_are_served_too() -> None:
    watch = Watch()
    fit(Remembers(), make_sequences("Pendulum-v1"), watch)
    assert watch.batches[0]["sequences"]["observation"].shape == (1, 3, 4, 3)
    assert watch.batches[0]["sequences"]["observation"].dtype == torch.float32


def test_frames_are_logged_beside_steps() -> None:
    data = SequenceReplay(
        EnvConfig(LIGHT, max_episode_steps=12, action_repeat=2, pixels=PixelConfig(size=8)),
        **{"total_frames": 30, "learning_starts": 20, "batch_size": 2, "sequence_length": 3, "storage": "memory"},
    )
    algorithm = Remembers()
    fit(algorithm, data)
    assert algorithm.progress_metrics()["time/simulator_steps"] == 60.0
    assert data.spec.max_episode_steps == 6


def test_observations_are_on_the_disk_unless_told_otherwise() -> None:
    assert make_sequences(storage=None).storage == SequenceReplay(EnvConfig(LIGHT)).storage == "memmap"
    assert make_data().storage == "memory"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sequence_length": 1}, "--data.sequence_length=1: expected an integer > 1"),
        ({"pretrain_steps": -1}, "--data.pretrain_steps=-1: expected an integer >= 0"),
        ({"capacity": 7}, "--data.capacity=7: expected at least two frames per step of data.frames_per_batch"),
        ({"sequence_batch_size": 5}, "--data.sequence_batch_size=5: expected null"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError) as error:
        make_sequences(**options)
    assert str(error.value).startswith(line)


def test_algorithm_and_data_have_to_fit() -> None:
    with pytest.raises(OptionError, match="--data=SequenceReplay: expected lit_mbrl.data.OffPolicy for SAC"):
        make_sequences().check_algorithm(SAC())
    with pytest.raises(OptionError, match="--data=OffPolicy: expected lit_mbrl.data.SequenceReplay for Remembers"):
        make_data().check_algorithm(Remembers())
    make_sequences().check_algorithm(Remembers())


def test_the_predicted_size_is_said_and_has_to_fit(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    data = make_sequences(storage="memmap", capacity=50)
    assert data.disk_bytes(None, 1)["data.storage=memmap"] == 50 * frame_bytes(data.spec)
    with caplog.at_level("INFO"):
        fit(Remembers(), data, default_root_dir=tmp_path)
    assert "replay: 50 frames, 0.0 MB in memmap when full" in caplog.text
    huge = make_sequences(storage="memmap", capacity=10**9, total_frames=10**15)
    with pytest.raises(OptionError, match=r"--data.capacity=.* GB: expected at most the free disk space"):
        huge.check(str(tmp_path))


OVERLAP: dict[str, Any] = {
    "num_envs": 2,
    "frames_per_batch": 2,
    "utd_ratio": 0.5,
    "async_env_steps": True,
    "workers": True,
}


def test_overlapping_collects_the_same_frames_in_the_same_rounds() -> None:
    """With a policy that never changes it makes no difference at all when the policy acts."""
    found = []
    for overlap in (False, True):
        torch.manual_seed(0)
        algorithm, watch = Frozen(), Watch()
        data = make_sequences(LIGHT, **(OVERLAP | {"async_env_steps": overlap, "utd_ratio": 1.0}))
        fit(algorithm, data, watch)
        state = data.replay.state_dict()
        found.append((watch.progress, state["written"], state["frames"]))
    assert found[0][0] == found[1][0] and found[0][1] == found[1][1]
    assert all(torch.equal(found[0][2][key], found[1][2][key]) for key in found[0][2])


def test_workers_step_during_the_updates() -> None:
    stepped = []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            collector = trainer.datamodule.collector
            # A worker's answer arrives while nobody here asks for it.
            stepped.append(collector.begun and all(each.poll(20) for each in collector.env._pool._connections))

    fit(Remembers(), make_sequences(LIGHT, **OVERLAP), Look())
    assert stepped and all(stepped)


def test_resume_is_exact_with_a_step_begun(tmp_path: Path) -> None:
    whole, whole_data = Remembers(), make_sequences(LIGHT, **OVERLAP)
    fit(whole, whole_data)
    path = tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        fit(Remembers(), make_sequences(LIGHT, **OVERLAP), SaveAndStop(path, 11))
    second, second_data = Remembers(), make_sequences(LIGHT, **OVERLAP)
    fit(second, second_data, seed=12345, ckpt_path=path)
    expected, found = everything(whole, whole_data), everything(second, second_data)
    assert [key for key in expected if not torch.equal(expected[key].float(), found[key].float())] == []


def test_overlapping_needs_workers_and_single_steps() -> None:
    for options in ({"workers": False}, {"frames_per_batch": 4}):
        with pytest.raises(
            OptionError, match="--data.async_env_steps=True: expected data.env.workers=true and data.frames_per"
        ):
            make_sequences(LIGHT, **(OVERLAP | options))
