"""The model buffer against a plain list; segments never mix."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.data.buffers.imagined import ModelBuffer, SegmentedBuffer, bytes_per_row
from tests.helpers.frames import make_frames


def numbered(first: int, count: int) -> TensorDict:
    """Frames whose reward is their number."""
    frames = make_frames(count)
    frames["next", "reward"] = torch.arange(first, first + count, dtype=torch.float32).unsqueeze(-1)
    return frames


def numbers(frames: TensorDict) -> list[int]:
    return frames["next", "reward"].squeeze(-1).int().tolist()


def test_ring_keeps_the_newest_like_a_list() -> None:
    buffer, expected, written = ModelBuffer(10, 3, 2), [], 0
    for count in (4, 4, 5, 1, 10, 13, 0, 7):
        buffer.extend(numbered(written, count))
        expected, written = (expected + list(range(written, written + count)))[-10:], written + count
        assert numbers(buffer.rows()) == expected and len(buffer) == len(expected)


@pytest.mark.parametrize("written", [3, 6, 9, 14])
@pytest.mark.parametrize("capacity", [4, 6, 11])
def test_resizing_keeps_the_newest_and_goes_on(written: int, capacity: int) -> None:
    buffer = ModelBuffer(6, 3, 2)
    for number in range(written):
        buffer.extend(numbered(number, 1))
    buffer.resize(capacity)
    expected = list(range(written))[-6:][-capacity:]
    assert numbers(buffer.rows()) == expected
    buffer.extend(numbered(100, 3))
    assert numbers(buffer.rows()) == [*expected, 100, 101, 102][-capacity:]


def test_all_keys_come_back_as_they_went_in() -> None:
    buffer, frames = ModelBuffer(8, 3, 2), make_frames(8)
    buffer.extend(frames)
    for key in ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated")):
        assert torch.equal(buffer.rows()[key], frames[key]) and buffer.rows()[key].dtype == frames[key].dtype


def test_draws_are_uniform_and_whole_rows() -> None:
    buffer = ModelBuffer(20, 3, 2)
    buffer.extend(numbered(0, 12))  # the other eight rows are empty
    drawn = buffer.sample(60_000)
    counts = torch.bincount(torch.tensor(numbers(drawn)), minlength=12)
    # A count has mean 5000 and standard deviation 68; twelve of them stray further than 5 of these once in 10^5.
    assert len(counts) == 12 and ((counts - 5000).abs() < 340).all()
    rows = buffer.rows()[torch.tensor(numbers(drawn))]
    assert torch.equal(drawn["observation"], rows["observation"])
    assert torch.equal(drawn["next", "terminated"], rows["next", "terminated"])


def test_a_batch_comes_from_one_segment() -> None:
    buffer = SegmentedBuffer(3, 5, 3, 2)
    for segment in range(7):  # the ring goes round twice
        frames = numbered(10 * segment, 5)
        frames["weight"] = torch.full((5, 1), float(segment))
        buffer.extend(frames)
        seen = set()
        for _ in range(60):
            batch = buffer.sample(16)
            origin = {number // 10 for number in numbers(batch)}
            assert len(origin) == 1 and set(batch["weight"].flatten().tolist()) == {float(*origin)}
            seen |= origin
        # One of three segments is missed in 60 draws with a probability of 3 (2/3)^60 = 8e-11.
        assert seen == set(range(max(0, segment - 2), segment + 1))


def test_a_segment_has_its_size() -> None:
    with pytest.raises(ValueError, match="5 rows, not 4"):
        SegmentedBuffer(3, 5, 3, 2).extend(make_frames(4))


@pytest.mark.parametrize("weighted", [False, True])
def test_bytes_are_those_of_the_tensors(weighted: bool) -> None:
    buffer = ModelBuffer(7, 3, 2, weighted=weighted)
    tensors = [value for _, value in buffer._rows.items(True, True)]
    assert buffer.nbytes == sum(math.prod(t.shape) * t.element_size() for t in tensors)
    assert buffer.nbytes == 7 * bytes_per_row(3, 2, weighted)


def test_state_comes_back() -> None:
    first, second = ModelBuffer(10, 3, 2), ModelBuffer(4, 3, 2)
    first.extend(numbered(0, 7))
    first.extend(numbered(7, 8))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.rows()["observation"], second.rows()["observation"])
    state = torch.get_rng_state()
    drawn = numbers(first.sample(20))
    torch.set_rng_state(state)
    assert numbers(second.sample(20)) == drawn
    for buffer in (first, second):
        buffer.extend(numbered(50, 4))
    assert numbers(first.rows()) == numbers(second.rows())
