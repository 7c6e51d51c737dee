"""Replay: uniform transitions and sequences, episode borders, the ring, exact state."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.data.buffers.transitions import Replay, check_memory, predicted_bytes
from lit_mbrl.utils.errors import OptionError


def frames(start: int, steps: int, num_envs: int = 1, ends: dict[int, str] | None = None) -> TensorDict:
    """Frames `[num_envs, steps]` whose observation is (environment, time); `ends` maps time to the kind of end."""
    time = torch.arange(start, start + steps, dtype=torch.float32).expand(num_envs, steps)
    env = torch.arange(num_envs, dtype=torch.float32).unsqueeze(-1).expand(num_envs, steps)
    flags = {kind: torch.zeros(num_envs, steps, 1, dtype=torch.bool) for kind in ("terminated", "truncated")}
    for t, kind in (ends or {}).items():
        if start <= t < start + steps:
            flags[kind][:, t - start] = True
    return TensorDict(
        {
            "observation": torch.stack([env, time], -1),
            "action": torch.zeros(num_envs, steps, 1),
            "next": {
                "observation": torch.stack([env, time + 1], -1),
                "reward": time.unsqueeze(-1).clone(),
                **flags,
            },
        },
        [num_envs, steps],
    )


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("total", [20, 47])  # below and beyond the capacity of 30: the ring has wrapped
def test_sequences_are_uniform_and_never_cross_an_episode_end(num_envs: int, total: int) -> None:
    ends = {6: "terminated", 13: "truncated", 22: "terminated", 38: "truncated"}
    replay = Replay(30 * num_envs, num_envs)
    for t in range(total):
        replay.extend(frames(t, 1, num_envs, ends))
    length, oldest = 4, max(0, total - 30)
    valid = {
        (env, start)
        for env in range(num_envs)
        for start in range(oldest, total - length + 1)
        if not any(start + k in ends for k in range(length - 1))
    }
    assert any(start + length - 1 in ends for _, start in valid)  # a sequence may end with its episode

    count = 400 * len(valid)
    sequences = replay.sample_sequences(count, length)
    observation = sequences["observation"]
    assert torch.equal(observation[:, 1:], sequences["next", "observation"][:, :-1])
    found = Counter((int(env), int(t)) for env, t in observation[:, 0].tolist())
    assert set(found) == valid
    # 400 draws expected for each start, standard deviation 20: six of them is a chance of 2e-9 per start.
    assert max(abs(n - 400) for n in found.values()) < 120


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("total", [20, 47])
def test_beginnings_of_episodes_are_found(num_envs: int, total: int) -> None:
    """Of all episodes whose first frame is there: that of the run, and those after an end that is there, too."""
    ends = {6: "terminated", 13: "truncated", 16: "terminated", 38: "truncated"}
    replay = Replay(30 * num_envs, num_envs)
    for t in range(total):
        replay.extend(frames(t, 1, num_envs, ends))
    first = [0, 7, 14, 17] if total == 20 else [39]  # 17 is the oldest frame after 47: the end before it is gone
    found = replay.first_observations().tolist()
    assert sorted(found) == sorted([env, t] for env in range(num_envs) for t in first)


def test_transitions_are_uniform() -> None:
    replay = Replay(10)
    replay.extend(frames(0, 25))
    found = Counter(replay.sample_transitions(4000)["observation"][:, 1].int().tolist())
    assert set(found) == set(range(15, 25))
    assert max(abs(n - 400) for n in found.values()) < 120


def test_raw_values_are_kept() -> None:
    replay = Replay(10)
    stored = frames(0, 7, ends={3: "terminated"})
    replay.extend(stored)
    sampled = replay.sample_transitions(200)
    for row in sampled:
        original = stored[0, int(row["observation"][1])]
        assert (row == original).all()


def test_no_sequence_is_an_error_not_a_hang() -> None:
    replay = Replay(30)
    replay.extend(frames(0, 10, ends={t: "terminated" for t in range(10)}))
    with pytest.raises(OptionError, match="model.horizon"):
        replay.sample_sequences(4, 2)
    assert len(replay.sample_sequences(4, 1)) == 4
    empty = Replay(30)
    empty.extend(frames(0, 2))
    with pytest.raises(OptionError, match="learning_starts"):
        empty.sample_sequences(4, 5)


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("total", [20, 30, 47])
def test_state_round_trip_continues_identically(total: int, storage: str, tmp_path: Path) -> None:
    ends = {6: "terminated", 38: "truncated"}
    replay = Replay(30, storage=storage, directory=tmp_path / "a")
    for t in range(total):
        replay.extend(frames(t, 1, ends=ends))
    state = replay.state_dict()
    torch.save(state, tmp_path / "replay.pt")
    copy = Replay(30, storage=storage, directory=tmp_path / "b")
    copy.load_state_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    for t in range(total, total + 12):
        for one in (replay, copy):
            one.extend(frames(t, 1, ends=ends))
        drawn = []
        for one in (replay, copy):
            torch.manual_seed(t)
            drawn.append((one.sample_transitions(16), one.sample_sequences(16, 3)))
        assert all((a == b).all() for a, b in zip(*drawn, strict=True))


@pytest.mark.parametrize("total", [18, 40, 46])
@pytest.mark.parametrize("capacity", [20, 30, 50])
def test_a_replay_of_another_capacity_takes_the_newest_frames(capacity: int, total: int) -> None:
    replay, other = Replay(30, num_envs=2), Replay(capacity, num_envs=2)
    replay.extend(frames(0, total // 2, num_envs=2))
    other.load_state_dict(replay.state_dict())
    count = min(total, 30, capacity)
    kept, newest = other.numbered(other.written - count, other.written), replay.numbered(total - count, total)
    assert len(other) == count and all(torch.equal(kept[name], newest[name]) for name in kept)
    other.extend(frames(total // 2, 1, num_envs=2))
    assert set(other.sample_sequences(200, 2)["observation"][..., 1].diff(dim=1).flatten().tolist()) == {1.0}


@pytest.mark.parametrize("storage", ["memory", "memmap"])
def test_running_episodes_can_be_cut(storage: str, tmp_path: Path) -> None:
    replay = Replay(40, num_envs=2, storage=storage, directory=tmp_path)
    replay.extend(frames(0, 8, num_envs=2))
    replay.truncate_running_episodes()
    assert len(replay) == 16
    replay.extend(frames(8, 2, num_envs=2))
    starts = {int(t) for t in replay.sample_sequences(500, 2)["observation"][:, 0, 1]}
    assert starts == set(range(9)) - {7}
    cut = replay.frames()
    assert cut["next", "truncated"].sum() == 2 and not cut["next", "terminated"].any()


def test_predicted_size_is_the_storage_s() -> None:
    replay = Replay(50)
    replay.extend(frames(0, 60))
    stored = replay.frames()
    size = sum(stored[key].numel() * stored[key].element_size() for key in stored.keys(True, True))
    assert predicted_bytes(50, observation_dim=2, action_dim=1) == size + replay._ends.nbytes


@pytest.mark.parametrize("storage", ["memory", "memmap"])
def test_a_replay_that_cannot_fit_is_refused(storage: str, tmp_path: Path) -> None:
    check_memory(1_000, storage, tmp_path)
    with pytest.raises(OptionError, match=r"--data.capacity=1000000000.0 GB: expected at most the free"):
        check_memory(10**18, storage, tmp_path)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("total", [5, 20, 47])  # no episode has ended; below and beyond the capacity of 30
def test_the_latest_episodes_are_those_that_are_there_as_a_whole(num_envs: int, total: int) -> None:
    ends = {6: "terminated", 13: "truncated", 22: "terminated", 38: "truncated"}
    replay = Replay(30 * num_envs, num_envs)
    for t in range(total):
        replay.extend(frames(t, 1, num_envs, ends))
    begins = [0, 7, 14, 23]
    whole = [
        (env, begin, end - begin + 1)
        for begin, end in zip(begins, ends, strict=True)
        for env in range(num_envs)
        if end < total and begin > max(0, total - 30) - (total <= 30)
    ]
    found = replay.latest_episodes(100)
    assert found.shape == (len(whole), 2)
    for (first, length), (env, begin, steps) in zip(found.tolist(), whole, strict=True):
        assert length == steps
        numbers = first + torch.arange(length) * num_envs
        observation = replay.numbered_frames(numbers)["observation"]
        assert observation.tolist() == [[env, begin + t] for t in range(length)]
    assert torch.equal(replay.latest_episodes(2), found[-2:])
