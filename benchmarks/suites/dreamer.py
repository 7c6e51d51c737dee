"""Dreamer v1: what an update costs at the paper's size, where the time goes, and sheeprl's beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from tensordict import TensorDict

from benchmarks.harness.pairs import interleave, ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import OURS, PROGRAM, SHEEPRL, Settings
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender, Meter

# The sizes of the paper's update; the number of actions is the one of sheeprl's dummy environment.
BATCH, LENGTH, HORIZON, ACTIONS = 50, 50, 15, 2
PRECISIONS = ("32-true", "bf16-mixed")
_QUICK = {"deter": 8, "stoch": 4, "hidden": 8, "depth": 2, "units": 8, "horizon": 3}


def make_update(quick: bool) -> tuple[Any, Any]:
    """An algorithm with the paper's numbers, which are its defaults, and a batch of noise; at toy size if quick."""
    from lit_mbrl.algorithms import Dreamer
    from lit_mbrl.envs import Spec

    batch, length = (2, 4) if quick else (BATCH, LENGTH)
    algorithm = Dreamer(**(_QUICK if quick else {"horizon": HORIZON}))
    algorithm.configure(Spec("noise", 3 * 64 * 64, ACTIONS, observation_shape=(3, 64, 64)))
    false = torch.zeros(batch, length, 1, dtype=torch.bool)
    frames = {
        "observation": torch.randint(0, 256, (batch, length, 3, 64, 64), dtype=torch.uint8),
        "action": torch.rand(batch, length, ACTIONS) * 2 - 1,
        "reward": torch.randn(batch, length, 1),
        "terminated": false,
        "mask": ~false,
    }
    return algorithm, TensorDict(frames, [batch, length])


def take_update(algorithm: Any, optimizers: list[torch.optim.Optimizer], batch: Any) -> dict[str, tuple[float, ...]]:
    """One round as `Algorithm.gradient_step` takes it; the seconds of forward, backward and step of every update."""
    seconds: dict[str, tuple[float, ...]] = {}
    given: dict[str, Any] = {}
    for update, optimizer in zip(algorithm.update_list, optimizers, strict=True):
        times = [time.perf_counter()]
        loss = update.compute_loss(batch, given)
        times.append(time.perf_counter())
        for parameter in update.parameters():
            parameter.grad = None
        loss.backward(inputs=update.parameters())
        times.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(update.parameters(), update.max_grad_norm)
        optimizer.step()
        times.append(time.perf_counter())
        seconds[update.name] = tuple(b - a for a, b in pairwise(times))
    return seconds


def train(work: Work, meter: Meter) -> None:
    """The contender: updates on one batch, without an environment."""
    torch.set_num_threads(work.threads)
    algorithm, batch = make_update(work.hidden is not None)
    optimizers = algorithm.configure_optimizers()
    meter.started()
    while True:
        # As Lightning's precision plugin puts it around a whole `training_step`.
        with torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16-mixed"):
            take_update(algorithm, optimizers, batch)
        meter.tick()


def run(settings: Settings) -> Iterator[Table]:
    """Seconds per update, and the parts of ours."""
    print("Dreamer v1, updates", flush=True)
    work = Work("dreamer", threads=settings.threads, hidden=(8, 8) if settings.quick else None)
    names = [OURS] + ([SHEEPRL] if SHEEPRL not in settings.absent else [])
    kinds = {f"{name}, {precision}": (name, precision) for precision in PRECISIONS for name in names}
    contenders: dict[str, Contender] = {}
    try:
        for kind, (name, precision) in kinds.items():
            python = settings.sheeprl if name == SHEEPRL else None
            its = replace(work, precision=precision)
            contender = Contender(f"{PROGRAM[name]} dreamer", its, python, in_thread=settings.quick)
            contenders[kind] = contender
            settings.say(f"{kind}: ready after {contender.ready():.1f} s")
        blocks = {name: contender.block(1) for name, contender in contenders.items()}
        seconds = interleave(blocks, settings.pairs, 1, settings.say)
    finally:
        for contender in contenders.values():
            contender.close()
    title = f"Dreamer v1: one update of {BATCH} sequences of {LENGTH} images, H = {HORIZON}, the paper's networks"
    columns = ["", "seconds per update", "cost beside lit_mbrl's at the same precision"]
    table = Table("dreamer_update", title, columns, raw=seconds)
    for kind, (_, precision) in kinds.items():
        ours = seconds[f"{OURS}, {precision}"]
        table.rows.append([kind, str(spread(seconds[kind])), str(ratios(seconds[kind], ours))])
    yield table
    yield parts(settings)


def parts(settings: Settings) -> Table:
    """Times the parts of one update."""
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        algorithm, batch = make_update(settings.quick)
        optimizers = algorithm.configure_optimizers()
        take_update(algorithm, optimizers, batch)
        seconds = take_update(algorithm, optimizers, batch)
    finally:
        torch.set_num_threads(threads)
    table = Table("dreamer_parts", "Dreamer v1: the parts of an update, seconds", ["", "forward", "backward", "step"])
    for name, values in seconds.items():
        table.rows.append([name, *(f"{value:#.3g}" for value in values)])
    return table
