"""Soft target update: closed form, period, once per round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_mbrl.algorithms import DDPG, PPO, SAC, TD3, Algorithm
from lit_mbrl.callbacks import SoftTargetUpdate
from lit_mbrl.utils.errors import OptionError
from tests.helpers.runs import SHORT, fit, make_data, make_rollouts


def module(train_steps: int) -> SimpleNamespace:
    online, target = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    return SimpleNamespace(
        targets=lambda: iter([(online, target)]), train_steps=train_steps, online=online, target=target
    )


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_target_moves_by_tau(tau: float) -> None:
    callback, net = SoftTargetUpdate(tau=tau), module(1)
    before = [p.clone() for p in net.target.parameters()]
    callback.on_fit_start(None, net)
    callback.on_train_batch_end(None, net)
    for old, online, target in zip(before, net.online.parameters(), net.target.parameters(), strict=True):
        torch.testing.assert_close(target, tau * online + (1 - tau) * old)


def test_period_counts_the_module_s_rounds() -> None:
    net = module(0)
    moved = []
    for net.train_steps in range(1, 8):
        callback = SoftTargetUpdate(tau=1.0, period=3)  # a new one each round: the rhythm is the module's, not its own
        with torch.no_grad():
            net.online.bias.fill_(net.train_steps)
        callback.on_fit_start(None, net)
        callback.on_train_batch_end(None, net)
        moved.append(bool((net.target.bias == net.train_steps).all()))
    assert moved == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(("batch", "moves"), [({"a": None}, False), ({"a": None, "b": 1}, True), ({}, True)])
def test_a_training_step_without_a_batch_moves_nothing(batch: dict[str, Any], moves: bool) -> None:
    net, callback = module(1), SoftTargetUpdate(tau=1.0)
    callback.on_fit_start(None, net)
    callback.on_train_batch_end(None, net, None, batch, 0)
    assert torch.equal(net.target.weight, net.online.weight) == moves


class Trace(Callback):
    """The target each round against the recursion from the online network."""

    def __init__(self, tau: float, period: int) -> None:
        self.tau, self.period = tau, period

    def on_train_start(self, trainer, pl_module) -> None:
        self.expected = [p.clone() for p in pl_module.critic_target.parameters()]
        self.updates = 0

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if pl_module.train_steps % self.period == 0:
            self.updates += 1
            online = pl_module.critic.parameters()
            self.expected = [torch.lerp(e, p.detach(), self.tau) for e, p in zip(self.expected, online, strict=True)]
        for e, p in zip(self.expected, pl_module.critic_target.parameters(), strict=True):
            torch.testing.assert_close(e, p)


@pytest.mark.parametrize(("algorithm", "period"), [(DDPG, 1), (TD3, 2)])
def test_runs_once_per_round_of_a_real_run(algorithm: type, period: int) -> None:
    trace = Trace(0.05, period)
    fit(algorithm(hidden_sizes=[8, 8]), make_data(), trace, period=period)
    assert trace.updates == (SHORT["total_frames"] - SHORT["learning_starts"]) // period


def train(algorithm: Algorithm, data: Any, callbacks: list[Callback]) -> None:
    """As a script does, with its own trainer."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=-1, callbacks=callbacks, **quiet)
    try:
        trainer.fit(algorithm, data)
    finally:
        data.teardown("fit")


def test_a_script_without_it_is_refused_before_a_step_is_taken() -> None:
    data = make_data()
    line = r"--trainer.callbacks=\[\]: expected a list with lit_mbrl.callbacks.SoftTargetUpdate, since SAC has target"
    with pytest.raises(OptionError, match=line):
        train(SAC(hidden_sizes=[8]), data, [])
    assert data.env_steps == 0
    rollouts = make_rollouts(total_frames=20)
    train(PPO(hidden_sizes=[8]), rollouts, [])  # which has no targets
    assert rollouts.env_steps == 20


def test_another_callback_may_move_the_targets() -> None:
    class Copy(Callback):
        moves_targets = True

    data = make_data(total_frames=30)
    train(SAC(hidden_sizes=[8]), data, [Copy()])
    assert data.env_steps == 30


@pytest.mark.parametrize("options", [{"tau": 1.5}, {"tau": -0.1}, {"period": 0}])
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(OptionError, match=f"callbacks.{next(iter(options))}="):
        SoftTargetUpdate(**options)
