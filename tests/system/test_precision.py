"""Mixed precision: networks compute in half precision; weights, data and whatever becomes a loss stay in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

import lit_mbrl
from lit_mbrl.app.cli import CONF, main
from lit_mbrl.networks import MLP
from tests.helpers.command_line import DISCRETE, GOALS, LATENT, NO_WANDB, TABULAR, load, rows, tiny
from tests.helpers.frames import ALGORITHMS
from tests.helpers.runs import fit, make_data

BF16 = "--trainer.precision=bf16-mixed"
# Tables are in float64, whatever the trainer's precision.
CONFIGS = sorted(path for path in CONF.glob("*.yaml") if path.stem not in ("base", "qualification", *TABULAR))


class Types(Callback):
    """What the losses see: the type of every loss, of every network's result, and how often a layer ran in half."""

    def __init__(self) -> None:
        self.losses: set[torch.dtype] = set()
        self.results: set[torch.dtype] = set()
        self.hidden: set[torch.dtype] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, MLP):
                module.register_forward_hook(self._result)
                if len(module) > 1:
                    module[0].register_forward_hook(self._hidden)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.hidden.clear()
        self.training = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.training = False
        # During a round and not while acting.
        assert self.hidden == {torch.bfloat16}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        assert loss.isfinite()
        self.losses.add(loss.dtype)

    def _result(self, module: nn.Module, args: Any, result: torch.Tensor) -> None:
        self.results.add(result.dtype)

    def _hidden(self, module: nn.Module, args: Any, result: torch.Tensor) -> None:
        self.hidden.add(result.dtype)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_hidden_layers_are_in_half_precision_and_nothing_else(name: str) -> None:
    algorithm, data, types = ALGORITHMS[name](), make_data(), Types()
    algorithm.normalize_observations = True
    fit(algorithm, data, types, precision="bf16-mixed")
    assert types.losses == types.results == {torch.float32}
    assert {parameter.dtype for parameter in algorithm.parameters()} == {torch.float32}
    assert all(torch.isfinite(parameter).all() for parameter in algorithm.parameters() if parameter.requires_grad)
    assert {value.dtype for value in data.replay.state_dict()["frames"].values()} == {torch.float32, torch.bool}
    assert algorithm.normalizer.mean.dtype == torch.float64
    observation = torch.randn(4, 3)
    assert algorithm.act(observation).dtype == torch.float32
    assert algorithm.explore(observation, torch.zeros(4, 1, dtype=torch.bool)).dtype == torch.float32


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains(config: Path, tmp_path: Path) -> None:
    options = [f"--trainer.default_root_dir={tmp_path}"]
    options += [] if config.stem in {*LATENT, *DISCRETE, *GOALS, "pilco"} else ["--data.env.name=Pendulum-v1"]
    assert main(["fit", "--config", str(config), *tiny(config), NO_WANDB, BF16, *options]) == 0
    kinds = ("loss/", "plan/", "policy/predicted_cost")  # what plans, or searches, has no losses
    values = [float(row[name]) for row in rows(tmp_path) for name in row if name.startswith(kinds) and row[name]]
    assert values and all(map(math.isfinite, values))
    weights = load(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    assert not any(value.dtype in (torch.bfloat16, torch.float16) for value in weights.values())
    agent = lit_mbrl.load(tmp_path)
    images = agent.env.pixels is not None and agent.observation_space.dtype != np.uint8  # drawn ones, of any size
    observation = np.zeros((80, 80, 3), np.uint8) if images else agent.observation_space.sample()
    assert agent.action_space.contains(agent.act(observation))


def test_a_value_keeps_its_digits() -> None:
    """bfloat16 has 8 significant bits: 300.7 would be 300 or 302. The last layer is not rounded."""
    network = MLP(2, [4], 1)
    with torch.no_grad():
        network[2].weight.zero_()
        network[2].bias.fill_(300.7)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(torch.randn(3, 2)).tolist() == [[torch.tensor(300.7).item()]] * 3


class Moments(Callback):
    """Adam's first moments after the first round: a tenth of the gradient that it has seen."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == 1:
            states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
            self.found = [values["exp_avg"].clone() for state in states for values in state.values()]


def test_scaled_gradients_are_clipped_in_their_own_units() -> None:
    """float16 scales losses up by 2^10 here; Adam, and before it the clipping, see the gradients themselves."""
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        algorithm, moments = ALGORITHMS["sac_svg_code"](), Moments()  # clips the dynamics' gradient
        plugin = MixedPrecision("bf16-mixed" if scaler is None else "16-mixed", "cpu", scaler)
        # The same rounding in both: what is compared is the scale.
        plugin.autocast_context_manager = lambda: torch.autocast("cpu", torch.bfloat16)
        fit(algorithm, make_data(), moments, plugins=[plugin])
        found.append(moments.found)
        assert all(parameter.isfinite().all() for parameter in algorithm.parameters())
    plain, scaled = (torch.cat([moment.flatten() for moment in moments]) for moments in found)
    torch.testing.assert_close(scaled, plain, rtol=0.02, atol=0.01 * plain.abs().max().item())
    dynamics = [torch.cat([moment.flatten() for moment in moments[-20:]]).norm() for moments in found]
    torch.testing.assert_close(*dynamics, rtol=0.02, atol=0.0)
