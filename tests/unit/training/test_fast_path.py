"""Past Lightning and torch training steps do what they do through them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from lit_mbrl.algorithms import PPO, SAC
from lit_mbrl.app.cli import main
from lit_mbrl.callbacks import Checkpoint, GracefulStop, ProgressBar
from lit_mbrl.training.fast_path import EpochLoop, step
from lit_mbrl.training.optim import Adam
from tests.helpers.command_line import SAC as RUN
from tests.helpers.command_line import rows
from tests.helpers.runs import everything, fit, make_data, make_rollouts


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


def run(fast_path: bool, **options: Any) -> tuple[list[Any], dict, SAC]:
    algorithm, data, witness = SAC(hidden_sizes=[8, 8]), make_data(), Witness()
    algorithm.fast_path = fast_path
    lines: list[str] = []
    other = LambdaCallback(on_train_batch_start=lambda *_: lines.append("set on the instance"))
    fit(algorithm, data, witness, other, **options)
    return witness.heard + lines, everything(algorithm, data), algorithm


def takes_bypasses(algorithm: Any) -> tuple[bool, bool]:
    """Whether a run has bypassed Lightning around its steps and in its loop."""
    return algorithm.uses_fast_path, getattr(algorithm.trainer.fit_loop.epoch_loop, "_bypasses", False)


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"max_steps": 40}, {"limit_train_batches": 5}])
def test_the_same_hooks_counters_metrics_and_weights(options: dict) -> None:
    heard, result, algorithm = run(True, **options)
    expected, expected_result, through_lightning = run(False, **options)
    assert takes_bypasses(algorithm) == (True, True) and takes_bypasses(through_lightning) == (False, False)
    assert not isinstance(through_lightning.trainer.fit_loop.epoch_loop, EpochLoop)
    assert "set on the instance" in heard
    assert heard == expected
    assert all(torch.equal(result[key], expected_result[key]) for key in expected_result)


def test_minibatches_of_rollouts() -> None:
    results = []
    for fast_path in (True, False):
        algorithm, data = PPO(hidden_sizes=[8], max_grad_norm=0.1), make_rollouts()
        algorithm.fast_path = fast_path
        fit(algorithm, data)
        assert takes_bypasses(algorithm) == (fast_path, fast_path)
        results.append(everything(algorithm, data))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[1])


def test_the_option_of_a_run_changes_no_number(work: Path) -> None:
    for name in ("true", "false"):
        assert main([*RUN, f"--fast_path={name}", f"--trainer.default_root_dir={work / name}"]) == 0
    with_it, without = (rows(work / name) for name in ("true", "false"))
    assert len(with_it) > 2 and with_it == without


def test_a_hook_that_skips_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAC, "on_train_batch_start", lambda self, batch, i: -1 if i == 4 else None, raising=False)
    heard, result, algorithm = run(True)
    expected, expected_result, _ = run(False)
    assert takes_bypasses(algorithm) == (True, False)  # Lightning's own loop has to call it
    assert heard == expected
    assert all(torch.equal(result[key], expected_result[key]) for key in expected_result)


def test_a_profiler_sees_all_that_lightning_shows_it() -> None:
    _, _, algorithm = run(True, profiler="simple")
    assert takes_bypasses(algorithm) == (False, False)
    assert len(algorithm.trainer.profiler.recorded_durations["run_training_batch"]) == 36


class Listener(Callback):
    """Counts the steps that Lightning shows it."""

    def __init__(self) -> None:
        self.steps = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.steps += 1


def test_a_callback_around_steps_is_called() -> None:
    algorithm, listener = SAC(hidden_sizes=[8]), Listener()
    fit(algorithm, make_data(), listener)
    assert takes_bypasses(algorithm) == (False, False)
    assert listener.steps == 3 * 36


def test_callbacks_that_come_with_every_run_are_not_in_the_way(tmp_path: Path) -> None:
    algorithm, own = SAC(hidden_sizes=[8]), (ProgressBar(), GracefulStop(), Checkpoint())
    fit(algorithm, make_data(), *own, default_root_dir=tmp_path, enable_checkpointing=None)
    assert takes_bypasses(algorithm) == (True, True)


# ---------------------------------------------------------------------- Adam
COUNTS = SimpleNamespace(total=SimpleNamespace(ready=0, completed=0), current=SimpleNamespace(ready=0, completed=0))
OPTIMIZATION = SimpleNamespace(optim_step_progress=COUNTS)
TRAINER: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(manual_optimization=OPTIMIZATION)))


def pairs_of_steps(found_inf: float | None = None, **options: Any) -> tuple[list[torch.Tensor], Adam, torch.optim.Adam]:
    """Weights after steps of `fast_path` and of torch, along the same gradients, saved and loaded between."""
    torch.manual_seed(0)
    networks = [torch.nn.Linear(4, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    ours = Adam(networks[0].parameters(), lr=0.01, fused=True, **options)
    theirs = torch.optim.Adam(networks[1].parameters(), lr=0.01, fused=True, **options)
    x = torch.randn(8, 4)
    for k in range(6):
        for network, optimizer in zip(networks, (ours, theirs), strict=True):
            network.zero_grad()
            network(x).square().mean().backward()
            if found_inf is not None:
                optimizer.found_inf = torch.tensor(found_inf if k == 3 else 0.0)
            optimizer.param_groups[0]["lr"] = 0.01 / (k + 1)
        step(TRAINER, ours)
        theirs.step()
        if k == 2:
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    return [p - q for p, q in zip(*(network.parameters() for network in networks), strict=True)], ours, theirs


@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}]
)
@pytest.mark.parametrize("found_inf", [None, 1.0])
def test_the_short_way_is_the_long_way(options: dict[str, Any], found_inf: float | None) -> None:
    differences, ours, theirs = pairs_of_steps(found_inf, **options)
    assert not any(difference.any() for difference in differences)
    for state, expected in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert ours.state_dict()["state"][0]["step"] == (6 if found_inf is None else 5)


def test_the_short_way_leaves_to_torch_what_it_does_not_know() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Adam(weights, lr=0.1, fused=True)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("hook"))
    weights[0].grad = torch.ones(2)  # the other one has none
    step(TRAINER, optimizer)
    assert called == ["hook"] and weights[0][0] != 1 and weights[1][0] == 1
    weights[1].grad = torch.ones(2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    step(TRAINER, optimizer)
    schedule.step()  # warns of a scheduler that is ahead of its optimiser
    assert called == ["hook", "hook"]
    assert [state["step"] for state in optimizer.state.values()] == [2, 1]
