"""A NaN or infinite loss or gradient never reaches the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms import SAC
from lit_mbrl.app.cli import main
from lit_mbrl.training.nonfinite import MAX_SKIPPED, NonFiniteGuard
from lit_mbrl.training.optim import Adam
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import TrainingError
from tests.helpers.command_line import SAC as FIT
from tests.helpers.command_line import load, rows

# 60 frames, 20 of warm-up, epochs of 20: the first epoch with rounds ends at round 20, the run at round 40.
BAD_ROUND = 27


class InfiniteGradient(torch.autograd.Function):
    """The identity, with a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def spoil(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Makes SAC's actor loss, or only its gradient, not finite in one round."""
    original = SAC.actor_loss

    def actor_loss(self: SAC, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        loss, log_prob = original(self, batch)
        if self.train_steps == BAD_ROUND:
            loss = InfiniteGradient.apply(loss) if kind == "gradient" else loss + float(kind)
        return loss, log_prob

    monkeypatch.setattr(SAC, "actor_loss", actor_loss)


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_run_stops_with_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    spoil(monkeypatch, kind)
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, "--trainer.default_root_dir=run"]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "replay:" not in line]
    assert lines == [
        f"error: the loss or the gradient of 'actor' is not finite in training step {BAD_ROUND}; the step "
        "was not taken "
        "(--non_finite=skip goes on without it). At 47 env steps; the last good checkpoint is "
        "run/checkpoints/last.ckpt (40 env steps)"
    ]
    saved = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["lit_mbrl"]["train_steps"] == 20
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_skip_leaves_the_step_out_and_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "gradient")
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, "--trainer.default_root_dir=run", "--non_finite=skip"]) == 0
    saved = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["skipped"] == {"actor": 1}
    # The critic, the actor, the temperature: 40 rounds, one step of the actor less.
    steps = [optimizer["state"][0]["step"].item() for optimizer in saved["optimizer_states"]]
    assert steps == [40, 39, 40]
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    counts = [row["faults/skipped_actor"] for row in rows(tmp_path / "run") if row.get("loss/actor")]
    assert counts == ["", "", "1.0", "1.0"]  # rounds 10, 20, 30, 40


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator or with several processes: the answer stays in a tensor."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "average_", lambda tensors: None)


def step(check: NonFiniteGuard, round: int, gradient: float, optimizer: Adam, parameter: Tensor) -> None:
    parameter.grad = torch.full_like(parameter, gradient)
    loss, check.train_step = torch.tensor(0.0), round
    if check.check("critic", optimizer, loss, [parameter.grad], scaled=False):
        optimizer.step()


@pytest.mark.usefixtures("deferred")
def test_without_synchronisation_the_fused_optimiser_leaves_the_step_out() -> None:
    weights, twin_weights = torch.ones(3), torch.ones(3)
    optimizer, twin = (Adam([w.requires_grad_()], lr=0.1, fused=True) for w in (weights, twin_weights))
    check = NonFiniteGuard("skip")
    for round, gradient in enumerate([1.0, float("nan"), 2.0, float("inf"), 3.0]):
        step(check, round, gradient, optimizer, weights)
        if gradient in (1.0, 2.0, 3.0):
            twin_weights.grad = torch.full((3,), gradient)
            twin.step()
    assert torch.equal(weights, twin_weights) and not torch.equal(weights, torch.ones(3))
    assert check.metrics() == {}
    check.flush()
    assert check.metrics() == {"faults/skipped_critic": 2.0}


@pytest.mark.usefixtures("deferred")
def test_without_synchronisation_the_run_stops_late_and_names_the_first_round() -> None:
    weights = torch.ones(3, requires_grad=True)
    check = NonFiniteGuard("stop")
    for round, gradient in enumerate([1.0, float("nan"), float("nan")]):
        step(check, round, gradient, Adam([weights], lr=0.1, fused=True), weights)
    with pytest.raises(TrainingError, match="'critic' is not finite in training step 1"):
        check.flush()
    assert weights.isfinite().all()


def test_a_gradient_scaler_looks_after_its_gradients_itself() -> None:
    check = NonFiniteGuard()
    assert check.check("critic", None, torch.tensor(1.0), [torch.tensor([torch.inf])], scaled=True)
    with pytest.raises(TrainingError):
        check.check("critic", None, torch.tensor(torch.nan), [torch.tensor([1.0])], scaled=True)


def test_a_run_that_learns_nothing_any_more_stops() -> None:
    check = NonFiniteGuard("skip")
    check.record(["actor", "critic"], torch.tensor([False, True]))
    check.record(["actor", "critic"], torch.tensor([True, True]))
    for _ in range(MAX_SKIPPED - 1):
        check.record(["actor", "critic"], torch.tensor([False, True]))
    check.train_step = 102
    with pytest.raises(
        TrainingError, match=f"of 'actor' was not finite in {MAX_SKIPPED} steps in a row, up to training step 102:"
    ):
        check.record(["actor", "critic"], torch.tensor([False, True]))
    assert check.skipped == {"actor": MAX_SKIPPED + 1}
