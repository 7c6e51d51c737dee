"""The replay beside one packed NumPy array, which has nothing to do but to copy, and beside Stable-Baselines3's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import torch

from benchmarks.contenders.bare import PackedReplay
from benchmarks.harness.pairs import calls, interleave, ratios, spread
from benchmarks.harness.report import Table
from benchmarks.harness.settings import SB3, Settings
from benchmarks.studies.checkpoint_cost import ACTION, OBSERVATION, frames
from lit_mbrl.data.buffers.transitions import Replay

CAPACITY, EPISODE = 100_000, 1000
_ROW = 2 * OBSERVATION + ACTION + 2


def run(settings: Settings) -> Iterator[Table]:
    """One row per comparison; the first named is divided by the second."""
    print("replay", flush=True)
    torch.set_num_threads(settings.threads)
    capacity = 2000 if settings.quick else CAPACITY
    replay, packed = Replay(capacity), PackedReplay(capacity, _ROW)
    for first in range(0, capacity, EPISODE):
        episode = frames(EPISODE)
        episode["next", "truncated"][0, -1] = True
        replay.extend(episode)
        packed.rows[first : first + EPISODE] = np.random.default_rng(first).normal(size=(EPISODE, _ROW))
    packed.size = capacity
    one, many = frames(1), frames(1000)
    observation, action = np.zeros(OBSERVATION, np.float32), np.zeros(ACTION, np.float32)

    def add() -> None:
        packed.add(observation, action, observation, (0.0, False))

    def sb3_add() -> None:
        theirs.add(observation[None], observation[None], action[None], np.zeros(1), np.zeros(1), [{}])

    comparisons: list[tuple[str, str, Callable[[], object], Callable[[], object]]] = []

    def sampling(count: int, length: int) -> None:
        total = count * length
        comparisons.append(
            (
                f"sequences {count} x {length}",
                f"transitions {total} (equal bytes)",
                lambda: replay.sample_sequences(count, length),
                lambda: replay.sample_transitions(total),
            )
        )

    comparisons.append(
        ("transitions 256", "packed array", lambda: replay.sample_transitions(256), lambda: packed.sample(256))
    )
    sampling(64, 4)
    sampling(1024, 3)
    comparisons.append(("extend by 1 frame", "packed array", lambda: replay.extend(one), add))
    comparisons.append(
        (
            "extend by 1000 frames",
            "packed array, one by one",
            lambda: replay.extend(many),
            lambda: [add() for _ in range(1000)],
        )
    )
    if SB3 not in settings.absent:
        from stable_baselines3.common.buffers import ReplayBuffer

        spaces = (gymnasium.spaces.Box(-1, 1, (size,), np.float32) for size in (OBSERVATION, ACTION))
        theirs = ReplayBuffer(capacity, *spaces, device="cpu")
        for _ in range(2000):
            sb3_add()
        comparisons.append(("transitions 256", SB3, lambda: replay.sample_transitions(256), lambda: theirs.sample(256)))
        comparisons.append(("extend by 1 frame", SB3, lambda: replay.extend(one), sb3_add))

    table = Table(
        "replay",
        f"Replay of HalfCheetah's sizes, {capacity:,} transitions: microseconds",
        ["what", "beside", "us", "us of the other", "ratio"],
    )
    count = 2 if settings.quick else 200
    for name, other, ours, others in comparisons:
        for warm in (ours, others):
            warm()
        turn = max(1, count // 20) if "1000" in name else count
        seconds = interleave({"ours": calls(ours, turn), "other": calls(others, turn)}, settings.pairs, settings.blocks)
        scale = 1e6 / turn / settings.blocks
        cells = [str(spread([s * scale for s in seconds[key]])) for key in ("ours", "other")]
        table.rows.append([name, other, *cells, str(ratios(seconds["ours"], seconds["other"]))])
        table.raw[f"{name} / {other}"] = seconds
    yield table
