"""The lean loop over rounds does what Lightning's own does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from lit_mbrl.algorithms import SAC
from lit_mbrl.data import base
from lit_mbrl.data.round_loop import RoundLoop
from tests.helpers.runs import everything, fit, make_data


class Witness(Callback):
    """Notes which hooks it hears, when, under which name metrics would be logged, and logs some itself."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def note(self, hook: str, trainer: Trainer, module: Any) -> None:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        counts = tuple(vars(progress.current).items())
        optimizer_steps = trainer.global_step
        self.heard.append(
            (hook, module.train_steps, module._current_fx_name, counts, progress.is_last_batch, optimizer_steps)
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        assert batch["transitions"].shape == (8,)
        self.note(f"start {batch_idx}", trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.note(f"end {batch_idx} {outputs}", trainer, pl_module)
        if pl_module.train_steps % 3 == 0:
            pl_module.log("mine", float(batch_idx), on_step=True, on_epoch=True, batch_size=1)
        self.heard.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.note("epoch end", trainer, pl_module)


def run(monkeypatch: pytest.MonkeyPatch, lean: bool, **options: Any) -> tuple[list[Any], dict, Trainer]:
    algorithm, data, witness = SAC(hidden_sizes=[8, 8]), make_data(), Witness()
    lines: list[str] = []
    other = LambdaCallback(on_train_batch_start=lambda *_: lines.append("set on the instance"))
    with monkeypatch.context() as patch:
        if not lean:
            patch.setattr(base, "use_round_loop", lambda trainer: None)
        trainer = fit(algorithm, data, witness, other, **options)
    return witness.heard + lines, everything(algorithm, data), trainer


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"max_steps": 40}, {"limit_train_batches": 5}])
def test_the_same_hooks_counters_metrics_and_weights(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    heard, result, trainer = run(monkeypatch, lean=True, **options)
    expected, expected_result, own = run(monkeypatch, lean=False, **options)
    assert isinstance(trainer.fit_loop.epoch_loop, RoundLoop) and trainer.fit_loop.epoch_loop._plain
    assert not isinstance(own.fit_loop.epoch_loop, RoundLoop)
    assert "set on the instance" in heard
    assert heard == expected
    assert all(torch.equal(result[key], expected_result[key]) for key in expected_result)


def test_a_hook_that_skips_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAC, "on_train_batch_start", lambda self, batch, i: -1 if i == 4 else None, raising=False)
    heard, result, _ = run(monkeypatch, lean=True)
    expected, expected_result, _ = run(monkeypatch, lean=False)
    assert heard == expected
    assert all(torch.equal(result[key], expected_result[key]) for key in expected_result)


def test_a_profiler_sees_all_that_lightning_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, trainer = run(monkeypatch, lean=True, profiler="simple")
    assert not trainer.fit_loop.epoch_loop._plain
    assert len(trainer.profiler.recorded_durations["run_training_batch"]) == 36
