"""The steps of a fit as a compiled graph: the eager ones' numbers, exact on resume, eager where there is no graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms import MBPO, MEMR
from lit_mbrl.models import EnsembleConfig, RecurrentConfig
from lit_mbrl.training import compiled
from lit_mbrl.training.compiled import CompileError
from lit_mbrl.training.compiled_loss import CompiledLoss
from tests.helpers.dyna import EVENTS, make_dyna
from tests.helpers.runs import SaveAndStop, Stop, fit
from tests.unit.algorithms.test_mbpo_runs import state_of
from tests.unit.training.test_compiled import assert_same

SMALL: dict[str, Any] = EVENTS | {"hidden_sizes": [8], "model_max_epochs": 2, "model_batch_size": 8}
ENSEMBLE = EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=[8])
MAKE = {
    "mbpo": lambda compile: MBPO(world_model=ENSEMBLE, compile=compile, **SMALL),
    "mbpo_recurrent": lambda compile: MBPO(
        world_model=RecurrentConfig(hidden_size=8, layers=1, decoder_layers=1, gru_layers=1), compile=compile, **SMALL
    ),
    "memr": lambda compile: MEMR(
        world_model=ENSEMBLE, compile=compile, behaviour_batch_size=8, rollout_freq=2, segments=3, **SMALL
    ),
}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs traced graphs as they are."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, example: graph)


def make(name: str, compile: bool) -> tuple[MBPO, Any]:
    torch.manual_seed(0)
    algorithm = MAKE[name](compile)
    return algorithm, make_dyna()


def run(name: str, compile: bool) -> tuple[MBPO, dict[str, Tensor]]:
    algorithm, data = make(name, compile)
    fit(algorithm, data)
    return algorithm, state_of(algorithm, data)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", MAKE)
def test_fits_and_everything_after_them_are_the_eager_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[torch.Size] = []
    call = CompiledLoss.__call__

    def counted(self: CompiledLoss, frames: TensorDictBase) -> Tensor:
        sizes.append(frames.batch_size)
        return call(self, frames)

    monkeypatch.setattr(CompiledLoss, "__call__", counted)
    _, eager = run(name, False)
    assert not sizes
    algorithm, graph = run(name, True)
    others = {"mbpo": set(), "mbpo_recurrent": {"reward", "termination"}, "memr": {"behaviour"}}[name]
    assert set(algorithm.fitter.graphs) == {"dynamics"} | others
    assert all(8 in size for size in sizes)  # whole batches only: what an epoch has over differs from fit to fit
    assert_same(eager, graph, 2e-3)


def resume(name: str, folder: Path) -> None:
    whole, whole_data = make(name, True)
    fit(whole, whole_data)
    first, first_data = make(name, True)
    with pytest.raises(Stop):
        fit(first, first_data, SaveAndStop(folder / "run.ckpt", 9))
    second, second_data = make(name, True)
    fit(second, second_data, seed=12345, ckpt_path=folder / "run.ckpt")
    expected, found = state_of(whole, whole_data), state_of(second, second_data)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.usefixtures("uncompiled")
def test_resume_gives_the_same_bits(tmp_path: Path) -> None:
    resume("memr", tmp_path)


@pytest.mark.slow
def test_inductor_compiles_fits_and_resumes_them_exactly(tmp_path: Path) -> None:
    resume("mbpo", tmp_path)
    (_, eager), (algorithm, graph) = run("mbpo", False), run("mbpo", True)
    assert algorithm.fitter.compiles and algorithm.fitter.graphs
    assert_same(eager, graph, 2e-3)


@pytest.mark.usefixtures("uncompiled")
def test_a_loss_without_a_graph_runs_eagerly_and_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _, eager = run("mbpo", False)

    def refuse(self: CompiledLoss, frames: TensorDictBase) -> Any:
        raise ValueError("no graph\nand a long story")

    monkeypatch.setattr(CompiledLoss, "_compile", refuse)
    algorithm, data = make("mbpo", True)
    with pytest.warns(UserWarning, match=r"fits run eagerly, since dynamics: ValueError: no graph$") as heard:
        fit(algorithm, data)
    assert len([warning for warning in heard if "eagerly" in str(warning.message)]) == 1
    assert_same(eager, state_of(algorithm, data), 2e-3)


@pytest.mark.usefixtures("uncompiled")
def test_gradients_are_autograd_s_and_noise_is_drawn_anew() -> None:
    module = nn.Linear(3, 1)

    def loss(frames: TensorDictBase) -> Tensor:
        noise = torch.randn_like(frames["action"])
        return (module(frames["action"] + noise) - frames["next", "reward"]).square().mean()

    frames = TensorDict({"action": torch.randn(5, 3), "next": {"reward": torch.randn(5, 1)}}, [5])
    graph = CompiledLoss(module, loss, [module.weight])
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = loss(frames)
        (gradient,) = torch.autograd.grad(expected, [module.weight])
        torch.manual_seed(seed)
        torch.testing.assert_close(graph(frames), expected.detach())
        torch.testing.assert_close(module.weight.grad, gradient)
    assert module.bias.grad is None
    with torch.no_grad():
        module.weight.add_(1.0)  # the graph reads the weights as they are
    torch.manual_seed(3)
    expected = loss(frames).detach()
    torch.manual_seed(3)
    torch.testing.assert_close(graph(frames), expected)


def test_a_branch_on_a_value_is_no_graph() -> None:
    module = nn.Linear(3, 1)

    def loss(frames: TensorDictBase) -> Tensor:
        return module(frames["action"]).sum() if frames["action"].sum() > 0 else module.weight.sum()

    with pytest.raises(CompileError):
        CompiledLoss(module, loss, [module.weight])(TensorDict({"action": torch.ones(5, 3)}, [5]))
    assert module.weight.grad is None
