"""Lightning's options that have no place here are refused by the name of ours; monitors are known before a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.algorithms import DDPG, SAC, SACSVG, TD3
from lit_mbrl.app.cli import main
from lit_mbrl.envs import Spec
from tests.helpers.command_line import SAC as FIT
from tests.helpers.command_line import rows
from tests.helpers.runs import fit, make_data

EARLY = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("gradient_clip_val=1.0", "--model.max_grad_norm"),
        ("gradient_clip_algorithm=norm", "--model.max_grad_norm"),
        ("accumulate_grad_batches=2", "data.batch_size"),
        ("min_steps=10", "data.total_frames"),
        ("min_epochs=2", "data.total_frames"),
        ("max_steps=10", "data.total_frames"),
        ("val_check_interval=10", "data.epoch_frames"),
        ("val_check_interval=0.5", "data.epoch_frames"),
        ("check_val_every_n_epoch=null", "data.epoch_frames"),
        ("limit_train_batches=0.5", "data.epoch_frames"),
        ("limit_val_batches=0.5", "data.eval_episodes"),
        ("overfit_batches=2", "replay"),
        ("reload_dataloaders_every_n_epochs=2", "0"),
    ],
)
def test_what_lightning_would_do_otherwise_is_refused(
    option: str, hint: str, work: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*FIT, f"--trainer.{option}"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: --trainer.{option.replace('null', 'None')}: expected ") and hint in line
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("option", ["check_val_every_n_epoch=2", "limit_val_batches=0", "limit_val_batches=1"])
def test_what_works_is_let_through(option: str, work: Path) -> None:
    assert main([*FIT, f"--trainer.{option}", "--trainer.default_root_dir=run"]) == 0
    evaluations = {"check_val_every_n_epoch=2": 1, "limit_val_batches=0": 0, "limit_val_batches=1": 2}[option]
    assert sum(bool(row.get("eval/return")) for row in rows(Path("run"))) == evaluations


@pytest.mark.parametrize(
    ("name", "argument", "hint"),
    [
        ("LearningRateFinder", None, "the learning rates of model"),
        ("BatchSizeFinder", None, "data.batch_size"),
        ("OnExceptionCheckpoint", "dirpath=there", "checkpoint.every_epochs"),
    ],
)
def test_callbacks_of_another_loop_are_refused(
    name: str, argument: str | None, hint: str, work: Path, capfd: pytest.CaptureFixture
) -> None:
    options = [f"--trainer.callbacks+=lightning.pytorch.callbacks.{name}"]
    options += [f"--trainer.callbacks.{argument}"] if argument else []
    assert main([*FIT, *options]) == 2
    assert capfd.readouterr().err.startswith(f"error: --trainer.callbacks={name}: expected in its place {hint}")
    assert list(work.iterdir()) == []


# ---------------------------------------------------------------------- monitors
@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_a_monitor_that_there_is_not(kind: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    callback = f"--trainer.callbacks+=lightning.pytorch.callbacks.{kind}"
    assert main([*FIT, callback, "--trainer.callbacks.monitor=val_loss"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: --trainer.callbacks.monitor=val_loss: expected for {kind} one of eval/return, ")
    assert "train/return" in line and list(work.iterdir()) == []


def test_a_monitor_needs_evaluations(work: Path, capfd: pytest.CaptureFixture) -> None:
    options = ["--trainer.callbacks.monitor=eval/return", "--trainer.limit_val_batches=0"]
    assert main([*FIT, EARLY, *options]) == 2
    assert capfd.readouterr().err.startswith("error: --trainer.limit_val_batches=0: expected null, since EarlyStopping")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("monitor", ["eval/return", "train/return"])
def test_a_run_stops_early_by_a_monitor(monitor: str, work: Path) -> None:
    stop = [EARLY, f"--trainer.callbacks.monitor={monitor}", "--trainer.callbacks.stopping_threshold=-1e6"]
    assert main([*FIT, *stop, "--trainer.callbacks.mode=max", "--trainer.default_root_dir=run"]) == 0
    assert max(int(row["step"]) for row in rows(Path("run"))) == 40  # the first evaluation, and no second


def test_the_best_checkpoint_may_be_that_of_the_training_return(work: Path) -> None:
    assert main([*FIT, "--checkpoint.monitor=train/return", "--trainer.default_root_dir=run"]) == 0
    assert Path("run/checkpoints/best.ckpt").exists()


class Monitored(Callback):
    """Keeps what callbacks see of the training return at each evaluation."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(float(trainer.callback_metrics["train/return"]))


def test_the_monitored_return_is_that_of_the_episodes_since_the_last_evaluation() -> None:
    monitored, data = Monitored(), make_data("Pendulum-v1", max_episode_steps=12)
    fit(SAC(hidden_sizes=[8]), data, monitored, log_every_n_steps=3)
    rewards = data.replay.numbered(0, data.replay.written)["next.reward"].flatten().double()
    returns = rewards.view(-1, 12).sum(1)  # of five episodes; evaluations are at 40 and at 60 steps
    assert monitored.seen == pytest.approx([returns[:3].mean().item(), returns[3:].mean().item()])


# ---------------------------------------------------------------------- gradients
class Norms(Callback):
    """Keeps the largest gradient norm of every optimiser's steps."""

    def __init__(self) -> None:
        self.largest: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        parameters = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.stack(parameters).norm())
        self.largest[id(optimizer)] = max(norm, self.largest.get(id(optimizer), 0.0))


@pytest.mark.parametrize("algorithm", [SAC, DDPG, TD3])
def test_gradients_are_clipped(algorithm: type) -> None:
    norms = Norms()
    fit(algorithm(hidden_sizes=[8], max_grad_norm=0.01), make_data(), norms)
    assert norms.largest and all(norm < 0.0101 for norm in norms.largest.values())
    free = Norms()
    fit(algorithm(hidden_sizes=[8]), make_data(), free)
    assert max(free.largest.values()) > 0.1


def test_an_update_s_own_bound_goes_first() -> None:
    algorithm = SACSVG(hidden_sizes=[8], max_grad_norm=0.5, model_max_grad_norm=2.0)
    algorithm.configure(Spec("made up", 3, 1))
    bounds = {update.name: update.max_grad_norm for update in algorithm.update_list}
    assert bounds.pop("dynamics") == 2.0 and set(bounds.values()) == {0.5}


def every_algorithm() -> Iterator[type]:
    """The classes with a paper."""
    import lit_mbrl.algorithms as module

    for name in module.__all__:
        cls = getattr(module, name)
        if isinstance(cls, type) and getattr(cls, "paper", ""):
            yield cls


def test_clipping_is_an_option_of_every_algorithm() -> None:
    from lit_mbrl.app.messages import parameters_of

    without = [cls.__name__ for cls in every_algorithm() if "max_grad_norm" not in parameters_of(cls)]
    assert without == []


@pytest.mark.parametrize("value", ["0", "-1", ".inf", ".nan", "abc"])
def test_a_bound_out_of_range(value: str, work: Path, capfd: pytest.CaptureFixture) -> None:
    assert main([*FIT, f"--model.max_grad_norm={value}"]) == 2
    assert capfd.readouterr().err.startswith("error: --model.max_grad_norm=")
