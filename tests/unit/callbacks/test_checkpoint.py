"""Checkpoints: when they are written, which one is the best, and that none is ever half there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_mbrl.algorithms import SAC
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.utils.errors import OptionError, TrainingError
from tests.helpers.command_line import load
from tests.helpers.runs import fit, make_data

ON: dict[str, Any] = {"enable_checkpointing": None}


class Counting(Checkpoint):
    """Counts what it saves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.saves: list[int] = []

    def save(self, trainer: Trainer, best: bool = False, stage: str | None = None) -> None:
        self.saves.append(trainer.lightning_module.train_steps)
        super().save(trainer, best, stage)


def run(folder: Path, checkpoint: Checkpoint, **options: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    return fit(SAC(hidden_sizes=[8]), make_data(), checkpoint, default_root_dir=folder, **ON, **options)


def improving(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Makes evaluations have these results."""
    remaining = list(values)

    def validation_step(self: SAC, episodes: Any, batch_idx: int) -> None:
        value = torch.tensor(remaining.pop(0))
        self.log_dict({"eval/return": value, "eval/return_std": value, "eval/episode_length": value}, batch_size=1)

    monkeypatch.setattr(SAC, "validation_step", validation_step)


# 60 frames, 24 of warm-up, epochs of 20: they end at rounds 16 and 36.
@pytest.mark.parametrize(
    ("every", "values", "saves"),
    [(1, (1.0, 0.0), [16, 36]), (2, (1.0, 0.0), [16, 36]), (2, (float("nan"),) * 2, [36]), (9, (1.0, 2.0), [16, 36])],
)
def test_saves_when_due_or_better_and_at_the_end(
    every: int, values: tuple[float, ...], saves: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    improving(monkeypatch, *values)
    checkpoint = Counting(every_epochs=every)
    run(tmp_path, checkpoint)
    assert checkpoint.saves == saves
    assert load(tmp_path / "checkpoints" / "last.ckpt")["lit_mbrl"]["train_steps"] == 36


def test_end_of_the_run_is_saved_even_if_not_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    improving(monkeypatch, float("nan"), float("nan"))
    checkpoint = Counting(every_epochs=5)
    run(tmp_path, checkpoint)
    assert checkpoint.saves == [36]


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [("max", (1.0, 0.0), 16), ("max", (0.0, 1.0), 36), ("min", (1.0, 0.0), 36), ("max", (float("nan"), -5.0), 36)],
)
def test_best_is_the_best(
    mode: str, values: tuple[float, float], best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    improving(monkeypatch, *values)
    run(tmp_path, Checkpoint(mode=mode))
    saved = load(tmp_path / "checkpoints" / "best.ckpt")
    assert saved["lit_mbrl"]["train_steps"] == best
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["best.ckpt", "last.ckpt", "replay"]


def test_best_survives_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    improving(monkeypatch, 10.0, 5.0)
    run(tmp_path, Checkpoint(), max_epochs=1)
    resumed = Checkpoint()
    run(tmp_path, resumed, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.best == 10.0
    assert load(tmp_path / "checkpoints" / "best.ckpt")["lit_mbrl"]["train_steps"] == 16
    assert load(tmp_path / "checkpoints" / "last.ckpt")["lit_mbrl"]["train_steps"] == 36


def test_checkpoint_names_its_run(tmp_path: Path) -> None:
    run(tmp_path, Checkpoint())
    assert load(tmp_path / "checkpoints" / "last.ckpt")["lit_mbrl"] == {
        "algorithm": "SAC",
        "environment": "Pendulum-v1",
        "env_steps": 60,
        "train_steps": 36,
    }


@pytest.mark.parametrize("stage", ["write", "flush", "rename"])
def test_a_failure_leaves_the_previous_checkpoint(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run(tmp_path, Checkpoint())
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        if stage == "write":
            Path(args[0]).write_bytes(b"half")
        raise OSError("disk full")

    if stage == "write":
        monkeypatch.setattr(trainer, "save_checkpoint", fail)
    else:
        monkeypatch.setattr(os, {"flush": "fsync", "rename": "replace"}[stage], fail)
    with pytest.raises(TrainingError, match="cannot be written to .*checkpoints \\(disk full\\)"):
        trainer.checkpoint_callback.save(trainer)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_without_hard_links_the_best_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    improving(monkeypatch, 1.0, 0.0)
    run(tmp_path, Checkpoint())
    assert load(tmp_path / "checkpoints" / "best.ckpt")["lit_mbrl"]["train_steps"] == 16


def test_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    Checkpoint().save(SimpleNamespace(fast_dev_run=1, default_root_dir=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "value"), [("every_epochs", 0), ("mode", "best")])
def test_wrong_options(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"--checkpoint.{option}={value}"):
        Checkpoint(**{option: value})


def test_an_unknown_metric_is_told_at_the_first_evaluation(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="--checkpoint.monitor=eval/retrun: expected a metric of the evaluation: eval/ep"
    ):
        run(tmp_path, Checkpoint(monitor="eval/retrun"))
