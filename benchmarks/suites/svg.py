"""SAC-SVG(H): what a round costs at H = 0..5 and at several batch sizes; its dynamics updates beside plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders.ours import visit
from benchmarks.harness.pairs import calls, interleave, ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import OURS, Settings, compare
from benchmarks.harness.work import Work

HORIZONS, BATCHES = range(6), (128, 256, 512, 1024)
PAPER, TASK = "paper/sac_svg/mbpo_hopper", "mbpo/Hopper"
_TINY = ("--model.model_hidden_size=8",)


def _work(settings: Settings, config: str, env: str, horizon: int, **changes: Any) -> Work:
    options = (f"--model.horizon={horizon}", *(_TINY if settings.quick else ()), *changes.pop("options", ()))
    values: dict[str, Any] = {"hidden": (8, 8) if settings.quick else None, "batch_size": None, "lr": None} | changes
    return Work(config, env, options=options, **values)


def run(settings: Settings) -> Iterator[Table]:
    """Growth with the horizon at two sizes, growth with the batch, the dynamics updates."""
    yield from _horizons(
        settings, "svg_laptop", "the sizes of conf/sac_svg.yaml, Pendulum-v1", "sac_svg", "Pendulum-v1", 100
    )
    title = f"the paper's sizes, conf/{PAPER}.yaml"
    yield from _horizons(settings, "svg_paper", title, PAPER, TASK, 2)
    yield from _batches(settings)
    yield from dynamics(settings)


def _horizons(settings: Settings, name: str, title: str, config: str, env: str, rounds: int) -> Iterator[Table]:
    print(f"SAC-SVG(H), {title}", flush=True)
    works = {f"H = {h}": (OURS, _work(settings, config, env, h)) for h in HORIZONS}
    seconds = compare(settings, works, rounds, warm=1)
    header = ["H", "rounds per second", "cost beside H = 1", "cost of the last step beside the first one's"]
    table = Table(name, f"SAC-SVG(H) at {title}", header, raw=seconds)
    table.notes.append("H = 0 has no world model. Growth is linear where the last column stays at 1 or below it.")
    one, two = seconds["H = 1"], seconds["H = 2"]
    for h in HORIZONS:
        cost = seconds[f"H = {h}"]
        step = "-"
        if h > 1:
            before = seconds[f"H = {h - 1}"]
            last, first = ([a - b for a, b in zip(*pair, strict=True)] for pair in ((cost, before), (two, one)))
            step = f"{spread(last).median / spread(first).median:.2f}"
        table.rows.append([str(h), str(spread([1 / s for s in cost])), str(ratios(cost, one)), step])
    yield table


def _batches(settings: Settings) -> Iterator[Table]:
    print("SAC-SVG(2), batch sizes", flush=True)

    def work(batch: int) -> Work:
        batch = 8 if settings.quick else batch
        option = (f"--data.sequence_batch_size={batch}",)
        return _work(settings, PAPER, TASK, 2, batch_size=batch, options=option)

    seconds = compare(settings, {str(batch): (OURS, work(batch)) for batch in BATCHES}, 4, warm=1)
    title = "SAC-SVG(2) at the paper's widths: growth with the batch (transitions and sequences alike)"
    table = Table("svg_batch", title, ["batch", "rounds per second", f"cost beside {BATCHES[0]}"], raw=seconds)
    for batch in BATCHES:
        cost = seconds[str(batch)]
        table.rows.append([str(batch), str(spread([1 / s for s in cost])), str(ratios(cost, seconds[str(BATCHES[0])]))])
    yield table


def plain_dynamics(dynamics: Any, observation: Tensor, actions: Tensor, following: Tensor) -> tuple[Tensor, ...]:
    """Gradients of eq. 10 for the same networks, with nothing but forward and backward around them.

    Args:
        dynamics: `models.RecurrentDynamics`.
        observation: the first one `[B, O]`.
        actions: `[B, T, A]`.
        following: the observations after them `[B, T, O]`.
    """
    hidden: list[Tensor | None] = [None] * len(dynamics.cells)
    loss = observation.new_zeros(())
    for action, target in zip(actions.unbind(1), following.unbind(1), strict=True):
        feature = dynamics.encoder(torch.cat([observation, action], -1))
        for i, cell in enumerate(dynamics.cells):
            hidden[i] = feature = cell(feature, hidden[i])
        observation = observation + dynamics.decoder(feature)
        loss = loss + (observation - target).square().sum(-1).mean()
    return torch.autograd.grad(loss, list(dynamics.parameters()))


def dynamics(settings: Settings) -> Iterator[Table]:
    """Four updates of the dynamics as a round takes them, beside forward and backward alone."""
    print("SAC-SVG, dynamics updates at the paper's sizes", flush=True)
    seconds: dict[str, list[float]] = {}

    def measure(algorithm: Any, batch: Any) -> None:
        sequences = algorithm.prepare_batch(batch["sequences"])
        index, update = next((i, u) for i, u in enumerate(algorithm.updates()) if u.name == "dynamics")
        optimizer = algorithm.optimizers()[index]
        model = algorithm.world_model.dynamics

        def ours() -> None:
            for frames in sequences.unbind(0):
                algorithm.gradient_step(update, optimizer, frames, {})

        def plain() -> None:
            for frames in sequences.unbind(0):
                plain_dynamics(model, frames["observation"][:, 0], frames["action"], frames["next", "observation"])

        for warm in (ours, plain):
            warm()
        contenders = {"updates": calls(ours, 1), "forward and backward": calls(plain, 1)}
        seconds.update(interleave(contenders, settings.pairs, min(2, settings.blocks), settings.say))

    work = _work(settings, PAPER, TASK, 2)
    visit(settings.sized(work), measure)
    ours, plain = seconds["updates"], seconds["forward and backward"]
    blocks = min(2, settings.blocks)
    header = ["four dynamics updates, ms", "forward and backward alone, ms", "ratio"]
    cells = [str(spread([s / blocks * 1e3 for s in values])) for values in (ours, plain)]
    title = f"Dynamics updates of SAC-SVG(2) at the paper's sizes, conf/{PAPER}.yaml"
    yield Table("svg_dynamics", title, header, [[*cells, str(ratios(ours, plain))]], raw=seconds)
