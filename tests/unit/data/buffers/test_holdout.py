"""Sequences to learn from and sequences to hold out: no observation in common, the shares asked for, all of time."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.utils.errors import OptionError
from tests.unit.data.buffers.test_transitions import frames

LONG_AND_SHORT = dict.fromkeys((2, 9, 10, 70, 75, 111, 400, 402, 404, 455), "terminated") | {300: "truncated"}


def numbered(total: int, num_envs: int, ends: dict[int, str]) -> TensorDict:
    """Frames whose observations are (environment, time); that after the end of an episode has a number of its own."""
    found = frames(0, total, num_envs, ends)
    over = found["next", "terminated"] | found["next", "truncated"]
    found["next", "observation"][..., 1:] -= 0.5 * over
    return found


def observations(sequences: TensorDictBase) -> set[tuple[float, float]]:
    """All that occur in sequences, as inputs or as targets."""
    both = torch.cat([sequences["observation"], sequences["next", "observation"]]).flatten(0, -2)
    return {(env, time) for env, time in both.tolist()}


def actual(replay: Replay, length: int, ends: dict[int, str]) -> set[tuple[int, int]]:
    """First (environment, time) of every sequence that the replay has."""
    stored = replay.frames()["observation"].tolist()
    times = {(int(env), int(t)) for env, t in stored}
    return {
        (env, t)
        for env, t in times
        if (env, t + length - 1) in times and not any(t + k in ends for k in range(length - 1))
    }


def firsts(sequences: TensorDictBase) -> set[tuple[int, int]]:
    return {(int(env), int(t)) for env, t in sequences["observation"][:, 0].tolist()}


@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("capacity", [500, 380])  # with room for all, and a ring that has wrapped
@pytest.mark.parametrize("ends", [LONG_AND_SHORT, {}], ids=["long and short episodes", "one long episode"])
def test_parts_share_no_observation(length: int, num_envs: int, capacity: int, ends: dict[int, str]) -> None:
    replay = Replay(capacity * num_envs, num_envs)
    replay.extend(numbered(500, num_envs, ends))
    training, holdout = replay.split_sequences(length, 0.2, 5_000)
    assert not observations(training) & observations(holdout)
    assert observations(training) and observations(holdout)
    for part in (training, holdout):
        assert part.shape[1:] == (length,)
        assert torch.equal(part["observation"][:, 1:], part["next", "observation"][:, :-1])
        assert len(firsts(part)) == len(part)  # each once
    every = actual(replay, length, ends)
    assert firsts(training) | firsts(holdout) <= every
    usable = {(env, t + k) for env, t in every for k in range(length)}
    held = {(env, t + k) for env, t in firsts(holdout) for k in range(length)}
    assert 0.1 < len(held) / len(usable) <= 0.2
    # At most 20 blocks are held out, each with two seams: a frame that belongs to none, and sequences across it.
    assert len(training) + len(holdout) > len(every) - 20 * 2 * length
    learnt = {(env, t + k) for env, t in firsts(training) for k in range(length)}
    assert not held & learnt and len(usable) - len(held | learnt) <= 40 * length


def test_the_parts_are_drawn_anew_and_repeat_under_a_seed() -> None:
    replay = Replay(500)
    replay.extend(numbered(500, 1, LONG_AND_SHORT))
    parts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        parts.append(firsts(replay.split_sequences(3, 0.2, 5_000)[1]))
    assert parts[0] == parts[1] != parts[2]
    torch.manual_seed(0)
    every = {t + k for _, t in actual(replay, 3, LONG_AND_SHORT) for k in range(3)}
    drawn = [{t + k for _, t in firsts(replay.split_sequences(3, 0.2, 5_000)[1]) for k in range(3)} for _ in range(100)]
    assert set.union(*drawn) == every  # each frame is held out now and then: one in five, so (4/5)^100 would miss it


def test_no_more_is_held_out_than_allowed() -> None:
    replay = Replay(4_000)
    replay.extend(numbered(4_000, 1, {}))
    for _ in range(20):
        training, holdout = replay.split_sequences(5, 0.5, 100)
        assert 50 < len({int(t) for t in holdout["observation"][..., 1].flatten()}) <= 100
        assert len(training) > 3_000


def test_two_sequences_are_enough_and_one_is_not() -> None:
    for steps, ends in ((10, {}), (6, {2: "terminated"}), (9, {2: "terminated", 5: "terminated"})):
        replay = Replay(50)
        replay.extend(numbered(steps, 1, ends))
        training, holdout = replay.split_sequences(3, 0.2, 5_000)
        assert len(training) and len(holdout) and not observations(training) & observations(holdout)
    for steps, ends in ((4, {}), (5, {2: "terminated"}), (9, {})):
        replay = Replay(50)
        replay.extend(numbered(steps, 1, ends))
        with pytest.raises(OptionError, match="--model.rollout_schedule=3: .* hold out"):
            replay.split_sequences(3, 0.2, 5_000)
    with pytest.raises(OptionError):
        Replay(50).split_sequences(3, 0.2, 5_000)
