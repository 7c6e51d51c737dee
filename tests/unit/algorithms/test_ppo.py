"""Runs of PPO and of the four ways of its entropy: schedules, early ends, clipping, compiled minibatches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_mbrl.algorithms import PPO, MaxEntPPO
from lit_mbrl.training import compiled
from tests.helpers.runs import everything, fit, make_rollouts
from tests.unit.algorithms.test_maxent_ppo import COEFFICIENTS, KINDS
from tests.unit.training.test_compiled import assert_same

# A class and what is not its default.
VARIANTS: list[tuple[type[PPO], dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    (MaxEntPPO, {"standardization": "after_constant"}),
    (MaxEntPPO, {"standardization": "after_differentiated", "differentiate_returns": False}),
]


class Losses(Callback):
    """The learning rate and whether weights moved, of every round."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.moved: list[bool] = []
        self._before: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        pairs = zip(self._before, pl_module.parameters(), strict=True)
        self.moved.append(any(not torch.equal(before, after) for before, after in pairs))


def test_learning_rate_falls_linearly_with_rollouts() -> None:
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.03, anneal_lr=True), make_rollouts(), watch)
    assert watch.rates == pytest.approx([0.03] * 10 + [0.02] * 10 + [0.01] * 10)


def test_target_kl_ends_a_rollout_s_epochs_and_no_more() -> None:
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.1, target_kl=1e-4), make_rollouts(), watch)
    for rollout in range(3):
        moved = watch.moved[10 * rollout : 10 * rollout + 10]
        steps = moved.index(False)
        assert 2 <= steps < 10 and moved == [True] * steps + [False] * (10 - steps)
    watch = Losses()
    fit(PPO(hidden_sizes=[8], lr=0.1, target_kl=1e4), make_rollouts(), watch)
    assert all(watch.moved)


def test_gradient_is_clipped_over_all_networks_together() -> None:
    moments = []
    for norm in (1e-3, 1e9):
        algorithm = PPO(hidden_sizes=[8], max_grad_norm=norm)
        fit(algorithm, make_rollouts(total_frames=20, num_epochs=1, batch_size=20))
        state = algorithm.trainer.optimizers[0].state_dict()["state"]
        moments.append(torch.cat([entry["exp_avg"].flatten() for entry in state.values()]) / 0.1)  # the gradient
    clipped, free = moments
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("kind", "own"), VARIANTS)
def test_a_compiled_minibatch_is_the_eager_one(
    kind: type[PPO], own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traced graph as it is; `test_inductor_compiles_a_minibatch` has it compiled."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, example: graph)
    found = [run(kind, compile, **own) for compile in (False, True)]
    assert_same(*found, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "own"), VARIANTS)
def test_inductor_compiles_a_minibatch(kind: type[PPO], own: dict[str, Any]) -> None:
    assert_same(run(kind, False, **own), run(kind, True, **own), 2e-4)


def run(kind: type[PPO], compile: bool, **own: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    options = {"anneal_lr": True, "normalize_observations": True, "scale_rewards": True, "value_clip_range": 0.2} | own
    algorithm = kind(hidden_sizes=[8], compile=compile, **options, **COEFFICIENTS[kind])
    data = make_rollouts("Pendulum-v1")
    fit(algorithm, data)
    assert algorithm.compile_option is compile  # nothing has made it give up
    return everything(algorithm, data)
