"""PPO, frames per second with all their updates: lit_mbrl, Stable-Baselines3 and the bare loop."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.pairs import ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import BARE, BARE_COMPILED, COMPILED, OURS, SB3, Settings, compare
from benchmarks.harness.work import Work

ENVS = ("HalfCheetah-v5", "CartPole-v1")
ORDER = (OURS, COMPILED, SB3, BARE, BARE_COMPILED)
ROLLOUT = 2048  # Stable-Baselines3's, of 8 environments together


def run(settings: Settings) -> Iterator[Table]:
    """Two tables: frames per second, and the ratios. A round here is a rollout, with ten epochs of minibatches."""
    speeds = Table("ppo_speed", "PPO: frames per second", ["task", *ORDER])
    shares = Table(
        "ppo_ratio",
        "PPO: ratios of the speeds",
        ["task", f"lit_mbrl / {SB3}", f"compiled / {SB3}", "lit_mbrl / bare", "compiled / bare compiled"],
    )
    for env in ENVS:
        works = {
            name: (
                name,
                Work(
                    "ppo",
                    env,
                    hidden=(64, 64),
                    batch_size=64,
                    num_envs=8,
                    frames_per_round=ROLLOUT,
                    compile=name in (COMPILED, BARE_COMPILED),
                ),
            )
            for name in ORDER
            if name not in settings.absent
        }
        print(f"PPO on {env}", flush=True)
        seconds = compare(settings, works, rounds=8, warm=2)
        frames = settings.sized(works[OURS][1]).frames_per_round
        speeds.rows.append(
            [env, *(str(spread([frames / s for s in seconds[name]])) if name in seconds else "-" for name in ORDER)]
        )
        speeds.raw[env] = seconds
        pairs = ((OURS, SB3), (COMPILED, SB3), (OURS, BARE), (COMPILED, BARE_COMPILED))
        shares.rows.append(
            [
                env,
                *(
                    f"{ratios(seconds[other], seconds[ours])}" if {ours, other} <= seconds.keys() else "-"
                    for ours, other in pairs
                ),
            ]
        )
    yield speeds
    yield shares
