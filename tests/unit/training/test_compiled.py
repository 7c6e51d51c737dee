"""A compiled round takes the steps of the eager one.

Inductor needs half a minute for a graph, so most tests run the traced graph as it is: what the graph says is ours, that
Inductor compiles it is checked once, and for every algorithm in the slow suite.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms import SAC, SACSVG, TD3, Algorithm, MaxEntDreamer, PlaNet
from lit_mbrl.app.cli import main
from lit_mbrl.envs import Spec
from lit_mbrl.training import compiled
from lit_mbrl.training.optim import Adam, adam_step
from lit_mbrl.training.update import Update
from tests.helpers.command_line import SAC as FIT
from tests.helpers.command_line import load, rows, same
from tests.helpers.frames import ALGORITHMS
from tests.helpers.latents import SMALL
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data
from tests.unit.algorithms.test_catching_up import PLANNER, make_run
from tests.unit.training.test_nonfinite import BAD_ROUND

ROUNDS = 16  # of a run of 40 frames whose warm-up takes 24
LATENT: dict[str, Callable[[], Algorithm]] = {
    "maxent": lambda: MaxEntDreamer(horizon=3, **SMALL),
    "planet": lambda: PlaNet(planner=PLANNER, **SMALL),
}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs traced graphs as they are."""
    monkeypatch.setattr(compiled, "inductor", lambda graph, example: graph)


def run(make: Any, compile: bool, **options: Any) -> dict[str, Tensor]:
    """Everything that a short run has produced."""
    torch.manual_seed(0)
    algorithm, data = make(), make_data(total_frames=40)
    algorithm.compile_option = compile
    fit(algorithm, data, **options)
    assert data.train_steps == ROUNDS
    return everything(algorithm, data)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        close = torch.allclose(second[name].double(), value.double(), rtol=tolerance, atol=tolerance)
        assert close, f"{name}: {second[name]} for {value}"


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_optimisers_and_random_numbers_are_the_eager_ones(name: str) -> None:
    eager, graph = run(ALGORITHMS[name], False), run(ALGORITHMS[name], True)
    assert torch.equal(eager["random"], graph["random"])
    assert_same(eager, graph, 2e-4)


def run_latent(name: str, compile: bool) -> tuple[Algorithm, dict[str, Tensor]]:
    """A few rounds of sequences of vectors."""
    torch.manual_seed(0)
    algorithm, data = LATENT[name](), make_run()
    algorithm.compile_option = compile
    fit(algorithm, data)
    return algorithm, everything(algorithm, data)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", LATENT)
def test_rounds_whose_losses_share_states_are_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[list[str]] = []
    original = compiled.CompiledTrainStep._compile
    monkeypatch.setattr(
        compiled.CompiledTrainStep,
        "_compile",
        lambda self, group, batch: graphs.append([u.name for _, u in group.updates]) or original(self, group, batch),
    )
    (_, eager), (algorithm, graph) = run_latent(name, False), run_latent(name, True)
    assert algorithm.compile_option and graphs == [[update.name for update in algorithm.update_list]]
    assert torch.equal(eager["random"], graph["random"])
    assert_same(eager, graph, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LATENT)
def test_inductor_compiles_latent_algorithms(name: str) -> None:
    (_, eager), (algorithm, graph) = run_latent(name, False), run_latent(name, True)
    assert algorithm.compile_option
    assert_same(eager, graph, 2e-3)


class Greedy(SAC):
    """An update that takes what comes after it."""

    def updates(self) -> Iterator[Update]:
        return reversed(list(super().updates()))


class Late(SAC):
    """An update that takes what is given in some of its rounds only."""

    def updates(self) -> Iterator[Update]:
        for update in super().updates():
            yield replace(update, every=2) if update.name == "actor" else update


@pytest.mark.parametrize("algorithm", [Greedy, Late])
def test_what_an_update_takes_has_to_be_given_before_it(algorithm: type[SAC]) -> None:
    with pytest.raises(ValueError, match="'alpha' takes 'log_prob', which no update before it gives"):
        algorithm(hidden_sizes=[8]).configure(Spec("made up", 3, 2))


@pytest.mark.usefixtures("uncompiled")
def test_what_is_given_stays_in_its_graph() -> None:
    class Apart(SAC):
        def updates(self) -> Iterator[Update]:
            critic, actor, alpha = super().updates()
            yield from (critic, replace(actor, repeat=2), alpha)

    with pytest.warns(UserWarning, match="eagerly, since 'alpha' takes 'log_prob' from an update in another graph"):
        run(lambda: Apart(hidden_sizes=[8]), True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_inductor_compiles_every_algorithm(name: str) -> None:
    assert_same(run(ALGORITHMS[name], False), run(ALGORITHMS[name], True), 2e-4)


def test_inductor_compiles_a_round_and_resumes_it_exactly(tmp_path: Path) -> None:
    def sac() -> Algorithm:
        torch.manual_seed(0)
        return SAC(hidden_sizes=[4], normalize_observations=True, compile=True)

    whole, data = sac(), make_data(total_frames=40)
    fit(whole, data)
    with pytest.raises(Stop):
        fit(sac(), make_data(total_frames=40), SaveAndStop(tmp_path / "half.ckpt", 7))
    resumed, resumed_data = sac(), make_data(total_frames=40)
    fit(resumed, resumed_data, ckpt_path=tmp_path / "half.ckpt", seed=1)
    first, second = everything(whole, data), everything(resumed, resumed_data)
    assert all(torch.equal(first[name], second[name]) for name in first)
    eager = run(lambda: SAC(hidden_sizes=[4], normalize_observations=True), False)
    assert_same(eager, first, 2e-4)


@pytest.mark.slow
def test_half_a_library_in_the_cache_is_not_the_end_of_compiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process leaves it that is killed while it compiles; each run is a process of its own, as a user's."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "lit_mbrl", *FIT, "--model.compile=true", "--trainer.default_root_dir"]
    run = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path, check=True)
    run([*command, "first"])
    libraries = list((tmp_path / "cache").glob("**/*.so"))
    assert libraries
    for path in libraries:
        path.write_bytes(b"")
    again = run([*command, "second"])
    (line,) = [line for line in again.stderr.splitlines() if "cache" in line]
    assert line.startswith("warning: model.compile: torch's cache is broken, delete it (")
    assert "eagerly" not in again.stderr
    first, second = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("first", "second"))
    assert same(first["state_dict"], second["state_dict"])


@pytest.mark.usefixtures("uncompiled")
def test_a_compiled_run_goes_on_eagerly_from_its_checkpoint(tmp_path: Path) -> None:
    def td3(compile: bool) -> Algorithm:
        torch.manual_seed(0)
        return TD3(hidden_sizes=[8], compile=compile)

    with pytest.raises(Stop):
        fit(td3(True), make_data(total_frames=40), SaveAndStop(tmp_path / "half.ckpt", 7))
    resumed, data = td3(False), make_data(total_frames=40)
    fit(resumed, data, ckpt_path=tmp_path / "half.ckpt", seed=1)
    assert_same(run(lambda: td3(False), False), everything(resumed, data), 2e-4)


@pytest.mark.usefixtures("uncompiled")
def test_clipping_is_that_of_the_eager_round() -> None:
    def make() -> SACSVG:
        return SACSVG(horizon=2, model_max_grad_norm=1e-3, hidden_sizes=[8], model_hidden_size=8)

    clipped, graph = run(make, False), run(make, True)
    assert_same(clipped, graph, 2e-4)
    free = run(ALGORITHMS["sac_svg"], False)
    moment = next(name for name in free if name.startswith("optimizer.5") and name.endswith("exp_avg"))
    assert graph[moment].norm() < 1e-2 * free[moment].norm()


@pytest.mark.usefixtures("uncompiled")
def test_adam_s_options_are_those_of_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(ALGORITHMS["sac"], False)
    monkeypatch.setattr(
        SAC,
        "configure_optimizers",
        lambda self: [
            Adam(update.parameters(), lr=update.lr, betas=(0.5, 0.7), eps=1e-3, fused=True)
            for update in self.update_list
        ],
    )
    eager, graph = run(ALGORITHMS["sac"], False), run(ALGORITHMS["sac"], True)
    assert_same(eager, graph, 2e-4)
    assert any(not torch.allclose(plain[name], eager[name], atol=1e-3) for name in plain if name.startswith("module"))


@pytest.mark.usefixtures("uncompiled")
def test_updates_that_wait_have_a_graph_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[compiled._Group] = []
    original = compiled.CompiledTrainStep._compile
    monkeypatch.setattr(
        compiled.CompiledTrainStep,
        "_compile",
        lambda self, group, batch: graphs.append(group) or original(self, group, batch),
    )
    run(ALGORITHMS["td3"], True)
    names = [[update.name for _, update in group.updates] for group in graphs]
    assert names == [["critic"], ["critic", "actor"]]
    graphs.clear()
    run(ALGORITHMS["sac_svg"], True)
    names = [[update.name for _, update in group.updates] for group in graphs]
    assert names == [["actor", "alpha", "critic", "reward", "termination"], ["dynamics"]]


@pytest.mark.usefixtures("uncompiled")
def test_the_end_of_the_warm_up_is_a_phase_with_graphs_of_its_own() -> None:
    def make() -> SACSVG:
        return SACSVG(horizon=2, warmup_steps=30, hidden_sizes=[8], model_hidden_size=8)

    assert_same(run(make, False), run(make, True), 2e-4)


class Clockwork(SAC):
    """A loss that reads a clock."""

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        loss, log_prob = super().actor_loss(batch)
        return loss * (1.0 + self.env_steps), log_prob


class Peeping(SAC):
    """A loss that branches on a value."""

    def actor_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        loss, log_prob = super().actor_loss(batch)
        return loss if loss.item() > 0 else 2.0 * loss, log_prob


@pytest.mark.parametrize(
    ("algorithm", "reason"), [(Clockwork, "reads a clock, which its compile_key"), (Peeping, "GuardOnDataDependent")]
)
def test_what_cannot_be_compiled_runs_eagerly_and_one_line_says_so(algorithm: type[SAC], reason: str) -> None:
    eager = run(lambda: algorithm(hidden_sizes=[8]), False)
    with pytest.warns(UserWarning, match=f"model.compile: the training steps run eagerly, since .*{reason}") as warned:
        fallen_back = run(lambda: algorithm(hidden_sizes=[8]), True)
    assert len([warning for warning in warned if "model.compile" in str(warning.message)]) == 1
    assert all(torch.equal(eager[name], fallen_back[name]) for name in eager)


class PlainDescent(SAC):
    """Another kind of step."""

    def updates(self) -> Iterator[Update]:
        for update in super().updates():
            yield replace(update, step=lambda parameters, lr, eps: torch.optim.SGD(parameters, lr), eps=0.5)


def test_other_kinds_of_steps_run_eagerly() -> None:
    eager = run(lambda: PlainDescent(hidden_sizes=[8]), False)
    assert not any(name.endswith("exp_avg") for name in eager)
    with pytest.warns(UserWarning, match="since the optimiser of 'critic' is not one plain"):
        fallen_back = run(lambda: PlainDescent(hidden_sizes=[8]), True)
    assert all(torch.equal(eager[name], fallen_back[name]) for name in eager)


def test_an_update_names_its_epsilon() -> None:
    algorithm = SAC(hidden_sizes=[8])
    algorithm.configure(Spec("made up", 3, 2))
    critic, *_ = algorithm.update_list
    assert critic.optimizer().param_groups[0]["eps"] == 1e-8 and type(critic.optimizer()) is Adam
    assert replace(critic, eps=1e-3).optimizer().param_groups[0] == critic.optimizer().param_groups[0] | {"eps": 1e-3}


def test_cuda_graphs_need_a_gpu(capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main([*FIT, "--trainer.default_root_dir=run", "--model.compile=cudagraphs", "--trainer.accelerator=cpu"]) == 2
    )
    error = capfd.readouterr().err.splitlines()[-1]
    assert error == "error: --model.compile=cudagraphs: expected true or false on a CPU: CUDA graphs need a GPU"


@pytest.mark.usefixtures("uncompiled")
def test_a_step_that_is_not_finite_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is traced in the first round, so the loss is spoilt by its data: one reward that is not finite.
    monkeypatch.chdir(tmp_path)
    original = Algorithm.training_step

    def training_step(self: Algorithm, batch: dict[str, TensorDictBase], batch_idx: int) -> None:
        if self.train_steps == BAD_ROUND:
            batch["transitions"]["next", "reward"].fill_(torch.nan)
        original(self, batch, batch_idx)

    monkeypatch.setattr(Algorithm, "training_step", training_step)
    arguments = [*FIT, "--trainer.default_root_dir=run", "--model.compile=true"]
    assert main([*arguments, "--non_finite=skip"]) == 0
    saved = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert saved["skipped"] == {"critic": 1}
    assert [optimizer["state"][0]["step"].item() for optimizer in saved["optimizer_states"]] == [39, 40, 40]
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    logged = [row for row in rows(tmp_path / "run") if row.get("loss/actor")]
    assert [float(row["time/train_steps"]) for row in logged] == [10, 20, 30, 40]


def test_adam_is_torch_s() -> None:
    torch.manual_seed(0)
    weights = torch.randn(5)
    twin = weights.clone().requires_grad_()
    optimizer = torch.optim.Adam([twin], lr=0.01)
    moments = (torch.zeros(5), torch.zeros(5))
    for step in range(1, 51):
        gradient = torch.randn(5)
        weights, *moments = adam_step(gradient, torch.tensor(0.01), torch.tensor(float(step)), weights, *moments)
        twin.grad = gradient
        optimizer.step()
        torch.testing.assert_close(weights, twin.detach(), rtol=1e-6, atol=1e-6)
