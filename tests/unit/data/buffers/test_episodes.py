"""Episodes in the replay: what belongs to which observation, and that no sequence crosses an end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict, TensorDictBase

from lit_mbrl.data.buffers.episodes import EpisodeReplay, frame_bytes
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.envs import Spec
from lit_mbrl.utils.errors import OptionError

SPEC = Spec("counting", observation_dim=12, action_dim=2, observation_shape=(3, 2, 2))


class Counting:
    """Environments that count: picture t shows (episode, t, env); the action at t is (episode, t), the reward 100 t.

    Episode e of an environment has `lengths[e % len(lengths)]` steps, and ends by termination if e is even.
    """

    def __init__(self, num_envs: int, lengths: list[int]) -> None:
        self.lengths, self.at = lengths, [(env * 50, 0) for env in range(num_envs)]

    def _picture(self, episode: int, t: int, env: int) -> torch.Tensor:
        return torch.tensor([episode, t, env], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)

    def steps(self, count: int) -> TensorDictBase:
        rows = []
        for env in range(len(self.at)):
            for _ in range(count):
                episode, t = self.at[env]
                over = t + 1 == self.lengths[episode % len(self.lengths)]
                rows.append(
                    TensorDict(
                        {
                            "observation": self._picture(episode, t, env),
                            "action": torch.tensor([float(episode), float(t)]),
                            "next": {
                                "observation": self._picture(episode, t + 1, env),
                                "reward": torch.tensor([100.0 * (t + 1)]),
                                "terminated": torch.tensor([over and episode % 2 == 0]),
                                "truncated": torch.tensor([over and episode % 2 == 1]),
                            },
                        }
                    )
                )
                self.at[env] = (episode + 1, 0) if over else (episode, t + 1)
        return torch.stack(rows).view(len(self.at), count)


def check(sequences: TensorDictBase, lengths: list[int]) -> None:
    """Every row of every sequence belongs to its observation."""
    for sequence in sequences:
        mask = sequence["mask"][:, 0]
        episode, t, env = (sequence["observation"][:, i, 0, 0].long() for i in range(3))
        assert len(set(episode.tolist())) == len(set(env.tolist())) == 1
        real = int(mask.sum())
        assert torch.equal(t[:real], torch.arange(int(t[0]), int(t[0]) + real))
        assert (t[real:] == t[real - 1]).all() and not mask[real:].any()
        first, length = t == 0, lengths[int(episode[0]) % len(lengths)]
        assert torch.equal(sequence["is_first"][:, 0], first)
        led_here = torch.stack([episode, t - 1], 1).float() * (mask & ~first)[:, None]
        assert torch.equal(sequence["action"], led_here)
        assert torch.equal(sequence["reward"][:, 0], 100.0 * t * mask)
        even = episode % 2 == 0
        assert torch.equal(sequence["terminated"][:, 0], (t == length) & even)
        assert torch.equal(sequence["truncated"][:, 0], (t == length) & ~even)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("chunk", [1, 7])
@pytest.mark.parametrize("capacity", [1000, 60])
@pytest.mark.parametrize("choice", ["episodes", "windows"])
def test_sequences_are_aligned_and_never_cross_an_end(num_envs, chunk, capacity, choice):
    lengths = [9, 3, 5, 12]
    world, replay = Counting(num_envs, lengths), EpisodeReplay(SPEC, capacity, num_envs)
    torch.manual_seed(0)
    for i in range(70 // chunk):
        replay.extend(world.steps(chunk))
        if i * chunk > 20:
            check(replay.sample(5, 4, choice), lengths)
            check(replay.sample(5, 8, choice, "pad"), lengths)
    assert len(replay) == min(capacity, replay.written) and replay.written > 70 * num_envs


def test_every_window_is_drawn_as_often_as_it_should_be():
    world, replay = Counting(1, [5, 2, 9]), EpisodeReplay(SPEC, 100)
    replay.extend(world.steps(5 + 2 + 9 + 1))  # episodes of 6, 3, 10 frames and a running one of 2
    torch.manual_seed(0)
    for choice, expected in (
        ("windows", {(0, 0): 1 / 8, (0, 1): 1 / 8} | {(2, t): 1 / 8 for t in range(6)}),
        ("episodes", {(0, 0): 1 / 4, (0, 1): 1 / 4} | {(2, t): 1 / 12 for t in range(6)}),
    ):
        drawn = replay.sample(20_000, 5, choice)["observation"][:, 0, :2, 0, 0].tolist()
        counts = Counter(map(tuple, drawn))
        assert set(counts) == set(expected)
        for window, share in expected.items():
            # Six standard deviations of a binomial share: a false alarm once in 10^8 runs.
            assert abs(counts[window] / 20_000 - share) < 6 * (share * (1 - share) / 20_000) ** 0.5


def test_padding_serves_all_episodes():
    world, replay = Counting(1, [2, 3]), EpisodeReplay(SPEC, 100)
    replay.extend(world.steps(20))
    with pytest.raises(OptionError, match=r"--data.sequence_length=6: .* whose longest has 4 "):
        replay.sample(2, 6)
    sequences = replay.sample(50, 6, short="pad")
    check(sequences, [2, 3])
    assert set(sequences["mask"].sum(1).view(-1).tolist()) == {3, 4}


def test_the_end_of_an_episode_is_served():
    world, replay = Counting(1, [6]), EpisodeReplay(SPEC, 100)
    replay.extend(world.steps(6))
    torch.manual_seed(0)
    assert replay.sample(50, 3)["terminated"][:, -1].float().mean() > 0.1


def test_one_hot_actions():
    spec = Spec("discrete", 12, 3, discrete=True, observation_shape=(3, 2, 2))
    world, replay = Counting(1, [6]), EpisodeReplay(spec, 100)
    frames = world.steps(6)
    frames["action"] = torch.tensor([[0, 1, 2, 2, 1, 0]])
    replay.extend(frames)
    sequence = replay.sample(1, 7)[0]
    assert torch.equal(sequence["action"][1:], torch.eye(3)[[0, 1, 2, 2, 1, 0]])
    assert not sequence["action"][0].any()


def test_running_episodes_are_cut():
    world, replay = Counting(2, [50]), EpisodeReplay(SPEC, 200, 2)
    replay.extend(world.steps(5))
    replay.truncate_running_episodes([1])
    world.at[1] = (51, 0)
    replay.extend(world.steps(5))
    check_ends = replay.sample(200, 6, "windows")
    cut = check_ends["truncated"][:, :, 0]
    assert cut[:, -1].any() and not cut[:, :-1].any()
    for sequence in check_ends:
        assert len(set(sequence["observation"][:, 0, 0, 0].tolist())) == 1


@pytest.mark.parametrize(("capacity", "length", "first"), [(200, 15, 0), (20, 5, 11)])  # the second has lost beginnings
def test_running_episodes_end_with_their_newest_frames(capacity, length, first):
    world, replay = Counting(3, [50]), EpisodeReplay(SPEC, capacity, 3)
    world.at[1] = (50, 40)  # ends after ten steps
    assert replay.running_episodes() is None
    replay.extend(world.steps(10))
    replay.truncate_running_episodes([2])
    world.at[2] = (101, 0)
    for _ in range(4):
        replay.extend(world.steps(1))
    replay.truncate_running_episodes([1])
    running = replay.running_episodes()
    episode, t, env = (running["observation"][..., i, 0, 0].long() for i in range(3))
    expected = torch.arange(15 - length, 15)
    assert torch.equal(t[0], expected.clamp(min=first)) and torch.equal(t[2], (expected - 10).clamp(min=0))
    assert (episode[[0, 2]] == torch.tensor([[0], [101]])).all() and (env[[0, 2]] == torch.tensor([[0], [2]])).all()
    assert torch.equal(running["is_first"][[0, 2], :, 0], t[[0, 2]] == t[[0, 2], :1])
    assert running["is_first"][1].all()  # none is running there
    led_here = torch.stack([episode, t - 1], -1).float() * (t > 0)[..., None]
    assert torch.equal(running["action"][[0, 2]], led_here[[0, 2]])


@pytest.mark.parametrize("capacity", [1000, 50])
@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("by", ["files", "state"])
def test_a_restored_replay_goes_on_with_the_same_sequences(capacity, storage, by, tmp_path: Path):
    lengths = [9, 3, 14]
    world, replay = Counting(2, lengths), EpisodeReplay(SPEC, capacity, 2, storage, tmp_path / "first")
    files = ReplayFiles(tmp_path / "replay")
    replay.piece = 8
    for i in range(12):
        replay.extend(world.steps(4))
        if i == 5:
            replay.truncate_running_episodes([0])
            world.at[0] = (world.at[0][0] + 3, 0)
        if i % 4 == 1:
            saved = files.save(replay)
    saved = files.save(replay)
    other = EpisodeReplay(SPEC, capacity, 2, storage, tmp_path / "second")
    other.piece = 8
    if by == "files":
        ReplayFiles(tmp_path / "replay").load(other, saved)
    else:
        other.load_state_dict(replay.state_dict())
    for _ in range(3):
        drawn = []
        for each in (replay, other):
            torch.manual_seed(1)
            drawn += [each.sample(20, 3), each.sample(20, 5, "windows", "pad")]
        assert (drawn[0] == drawn[2]).all() and (drawn[1] == drawn[3]).all()
        steps = world.steps(6)
        replay.extend(steps)
        other.extend(steps)
    assert replay.position() == other.position()


def test_files_hold_each_frame_once(tmp_path: Path):
    world, replay, files = Counting(1, [9]), EpisodeReplay(SPEC, 1000), ReplayFiles(tmp_path)
    for _ in range(3):
        replay.extend(world.steps(9))
        saved = files.save(replay)
    assert [(first, last) for _, first, last, *_ in saved["files"]] == [(0, 10), (10, 20), (20, 30)]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_predicted_size_is_that_of_the_tensors(tmp_path: Path):
    replay = EpisodeReplay(SPEC, 40, storage="memmap", directory=tmp_path)
    file = tmp_path / "observations.memmap"
    kept = sum(column.nbytes for column in replay._small.values()) + 8 * 40  # and the episodes' numbers
    assert file.stat().st_size + kept == 40 * frame_bytes(SPEC)
    assert file.stat().st_blocks * 512 >= file.stat().st_size  # allocated, not only promised
    vector = Spec("vector", observation_dim=3, action_dim=1)
    assert frame_bytes(vector) == 4 * (3 + 1 + 1) + 3 + 4 + 8


def test_a_full_disk_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(
        OptionError, match=r"--data.capacity=0.0 GB: expected free disk space for .*observations.memmap"
    ):
        EpisodeReplay(SPEC, 40, storage="memmap", directory=tmp_path)


def test_a_file_system_that_cannot_allocate_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def cannot(*args: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", cannot, raising=False)
    replay = EpisodeReplay(SPEC, 40, storage="memmap", directory=tmp_path)
    replay.extend(Counting(1, [9]).steps(20))
    check(replay.sample(4, 3), [9])


def test_giving_pages_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lit_mbrl.data.buffers.memmap_array._MANY_BYTES", 0)
    world, replay = Counting(1, [9, 4]), EpisodeReplay(SPEC, 30, storage="memmap", directory=tmp_path)
    for _ in range(9):
        replay.extend(world.steps(7))
        check(replay.sample(9, 4, "windows"), [9, 4])


def test_numpy_and_torch_see_the_same_rows(tmp_path: Path):
    replay = EpisodeReplay(SPEC, 30, storage="memmap", directory=tmp_path)
    replay.extend(Counting(1, [9]).steps(5))
    stored = np.fromfile(tmp_path / "observations.memmap", np.uint8).reshape(30, 3, 2, 2)
    assert stored[:6, 1, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert replay.written == 6
