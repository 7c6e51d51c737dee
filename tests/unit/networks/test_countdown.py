from __future__ import annotations

import torch

from lit_mbrl.networks.countdown import Countdown


def steps(countdown: Countdown, *flags: list[int]) -> list[list[float]]:
    return [countdown(torch.tensor(flag, dtype=torch.bool).unsqueeze(1)).squeeze(1).tolist() for flag in flags]


def test_it_counts_down_to_zero_and_then_anew() -> None:
    assert [left for (left,) in steps(Countdown(2), [1], *[[0]] * 6)] == [2, 1, 0, 2, 1, 0, 2]
    assert [left for (left,) in steps(Countdown(0), [1], [0], [0])] == [0, 0, 0]


def test_each_environment_has_its_own_and_an_episode_begins_anew() -> None:
    assert steps(Countdown(3), [1, 1], [0, 1], [0, 0], [1, 0]) == [[3, 3], [2, 3], [1, 2], [3, 1]]


def test_it_begins_where_nothing_is_known_as_after_the_warm_up() -> None:
    countdown = Countdown(4)
    assert steps(countdown, [0, 0], [0, 0]) == [[4, 4], [3, 3]]
    countdown.forget()
    assert steps(countdown, [0, 0]) == [[4, 4]]


def test_its_state_goes_on_elsewhere() -> None:
    first, second = Countdown(4), Countdown(4)
    second.load_state_dict(first.state_dict())  # of one that has not counted yet
    steps(first, [1], [0], [0])
    second.load_state_dict(first.state_dict())
    assert steps(first, [0], [0], [0]) == steps(second, [0], [0], [0]) == [[1], [0], [4]]
