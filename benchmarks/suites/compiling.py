"""Measures the start-up cost of compiling a training step, and after how many steps it has paid."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from statistics import median

from benchmarks.harness.pairs import spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import BARE, BARE_COMPILED, COMPILED, OURS, PROGRAM, Settings
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender

_ROUNDS = 200
_REPEATS = 3


def run(settings: Settings) -> Iterator[Table]:
    """SAC on Pendulum-v1, 256x256: seconds until the first round is over, eager, compiled and from the cache."""
    print("compilation", flush=True)
    header = ["", "eager: s", "compiled: s", "again, from the cache: s", "pays after rounds", "from the cache"]
    table = Table("compile", "Compilation: seconds until the first round is over, SAC on Pendulum-v1", header)
    for eager, compiled in ((OURS, COMPILED), (BARE, BARE_COMPILED)):
        if compiled in settings.absent:
            table.rows.append([eager, *["-"] * (len(header) - 1)])
            continue
        ready: dict[str, list[float]] = {"eager": [], "compiled": [], "cached": []}
        speed: dict[str, list[float]] = {"eager": [], "compiled": [], "cached": []}
        for _ in range(min(settings.pairs, _REPEATS)):
            with tempfile.TemporaryDirectory() as cache:
                for kind, name in (("eager", eager), ("compiled", compiled), ("cached", compiled)):
                    first, per_round = _start(settings, name, cache)
                    ready[kind].append(first)
                    speed[kind].append(per_round)
                    settings.say(f"{name}, {kind}: {first:.1f} s")
        gain = median(speed["eager"]) - median(speed["compiled"] + speed["cached"])
        pays = [
            f"{(median(ready[kind]) - median(ready['eager'])) / gain:,.0f}" if gain > 0 else "never"
            for kind in ("compiled", "cached")
        ]
        table.rows.append([eager, *(str(spread(ready[kind])) for kind in ready), *pays])
        table.raw[eager] = {"ready": ready, "seconds_per_round": speed}
    yield table


def _start(settings: Settings, name: str, cache: str) -> tuple[float, float]:
    work = settings.sized(Work("sac", "Pendulum-v1", compile=name in (COMPILED, BARE_COMPILED)))
    contender = Contender(PROGRAM[name], work, environment={"TORCHINDUCTOR_CACHE_DIR": cache})
    try:
        first = contender.ready()
        contender.turn(20)
        return first, contender.turn(_ROUNDS) / _ROUNDS
    finally:
        contender.close()
