"""One checkpoint format under replay, episodes and imagined data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.data.buffers.episodes import EpisodeReplay
from lit_mbrl.data.buffers.imagined import ModelBuffer
from lit_mbrl.data.buffers.ring import Ring
from lit_mbrl.data.buffers.transitions import Replay
from lit_mbrl.envs import Spec

RINGS: dict[str, Callable[[int], Any]] = {
    "transitions": Replay,
    "episodes": lambda capacity: EpisodeReplay(Spec("made-up", 1, 1, observation_shape=(1,)), capacity),
    "imagined": lambda capacity: ModelBuffer(capacity, 1, 1),
}


def steps(first: int, count: int) -> TensorDict:
    """Steps `[1, count]` of an episode that never ends and counts."""
    number = torch.arange(first, first + count).float().view(1, count, 1)
    false = torch.zeros(1, count, 1, dtype=torch.bool)
    following = {"observation": number + 1, "reward": number, "terminated": false, "truncated": false.clone()}
    return TensorDict({"observation": number, "action": number.clone(), "next": following}, [1, count])


def filled(name: str, capacity: int, count: int) -> Any:
    """A ring that has got so many steps, some at a time."""
    ring = RINGS[name](capacity)
    for first in range(0, count, 4):
        frames = steps(first, min(4, count - first))
        ring.extend(frames[0] if name == "imagined" else frames)
    return ring


@pytest.mark.parametrize("name", RINGS)
@pytest.mark.parametrize("count", [6, 10, 23])  # partly filled, just full, gone around
def test_a_restored_ring_has_every_row_in_its_slot(name: str, count: int) -> None:
    ring, other = filled(name, 10, count), RINGS[name](10)
    state = ring.state_dict()
    assert {"capacity", "cursor", "written", "size", "marks", "frames"} == state.keys()
    other.load_state_dict(state)
    again = other.state_dict()
    assert [again[key] for key in ("cursor", "written", "size")] == [
        state[key] for key in ("cursor", "written", "size")
    ]
    for key, value in state["frames"].items():
        assert torch.equal(again["frames"][key], value) and len(value) == len(ring) == min(ring.written, 10)
    slots = torch.arange(len(ring))
    assert all(torch.equal(rows, other._read(slots)[key]) for key, rows in ring._read(slots).items())


@pytest.mark.parametrize("name", ["transitions", "episodes"])
@pytest.mark.parametrize("capacity", [6, 40])
def test_a_ring_of_another_size_takes_the_newest_rows_and_goes_on(name: str, capacity: int) -> None:
    ring, other = filled(name, 10, 23), RINGS[name](capacity)
    other.load_state_dict(ring.state_dict())
    assert len(other) == min(capacity, 10) and other.written == ring.written
    for each in (ring, other):
        each.extend(steps(23, 3))
    ours, theirs = (each.numbered(each.written - 6, each.written) for each in (ring, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert len(other) == min(capacity, 13)


def test_slots_follow_the_numbers() -> None:
    ring = Ring(5)
    ring._advance(7)
    assert (ring.cursor, ring.oldest, len(ring)) == (2, 2, 5)
    assert ring.slots(torch.arange(2, 7)).tolist() == [2, 3, 4, 0, 1]
