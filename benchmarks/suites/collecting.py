"""Collection alone: SAC's policy, environments side by side, one round of updates in 1600 frames."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.pairs import ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import BARE, OURS, SB3, Settings, compare
from benchmarks.harness.work import Work

FRAMES = 1600
_OPTIONS = ("--data.epoch_frames=100000",)  # evaluations would leave little time for anything else


def run(settings: Settings) -> Iterator[Table]:
    """Frames per second of 1, 8 and 32 environments."""
    header = ["task", "environments", OURS, SB3, BARE, f"lit_mbrl / {SB3}", "lit_mbrl / bare"]
    table = Table("collector", "Collection: frames per second", header)
    for env in ("Pendulum-v1", "HalfCheetah-v5"):
        for copies in (1, 8, 32):
            print(f"collection, {copies} {env}", flush=True)
            work = Work("sac", env, num_envs=copies, frames_per_round=FRAMES, batch_size=32, options=_OPTIONS)
            works = {name: (name, work) for name in (OURS, SB3, BARE) if name not in settings.absent}
            seconds = compare(settings, works, rounds=4, warm=1)
            frames = settings.sized(work).frames_per_round
            speeds = [
                str(spread([frames / s for s in seconds[name]])) if name in seconds else "-"
                for name in (OURS, SB3, BARE)
            ]
            beside = [str(ratios(seconds[name], seconds[OURS])) if name in seconds else "-" for name in (SB3, BARE)]
            table.rows.append([env, str(copies), *speeds, *beside])
            table.raw[f"{env} {copies}"] = seconds
    yield table
