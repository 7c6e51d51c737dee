"""SAC, TD3 and DDPG, one round of updates per environment step: lit_mbrl, its peers and the bare loop."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.harness.pairs import ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import BARE, BARE_COMPILED, COMPILED, OURS, PEERS, SB3, SHEEPRL, Settings, compare
from benchmarks.harness.work import Work

ENVS = ("Pendulum-v1", "HalfCheetah-v5")
ORDER = (OURS, COMPILED, SB3, SHEEPRL, BARE, BARE_COMPILED)


def run(settings: Settings, algorithm: str) -> Iterator[Table]:
    """Two tables: rounds per second, and the ratios."""
    speeds = Table(f"{algorithm}_speed", f"{algorithm.upper()}: rounds per second", ["task", *ORDER])
    shares = Table(
        f"{algorithm}_ratio",
        f"{algorithm.upper()}: ratios of the speeds",
        ["task", "lit_mbrl / fastest peer", "lit_mbrl / bare", "compiled / fastest peer", "compiled / bare compiled"],
    )
    for env in ENVS:
        works = {
            name: (name, Work(algorithm, env, compile=name in (COMPILED, BARE_COMPILED)))
            for name in ORDER
            if name not in settings.absent and (name != SHEEPRL or algorithm == "sac")
        }
        print(f"{algorithm.upper()} on {env}", flush=True)
        seconds = compare(settings, works)
        speeds.rows.append(
            [env, *(str(spread([1 / s for s in seconds[name]])) if name in seconds else "-" for name in ORDER)]
        )
        speeds.raw[env] = seconds
        peers = {name: median(seconds[name]) for name in PEERS if name in seconds}
        fastest = min(peers, key=peers.__getitem__) if peers else None
        cells = []
        for ours, other in ((OURS, fastest), (OURS, BARE), (COMPILED, fastest), (COMPILED, BARE_COMPILED)):
            there = ours in seconds and other in seconds
            cells.append(f"{ratios(seconds[other], seconds[ours])}" if there else "-")
            if there and other in PEERS:
                cells[-1] += f" ({other})"
        shares.rows.append([env, *cells])
    yield speeds
    yield shares
