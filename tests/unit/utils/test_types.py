"""What types of options let pass, and what a message asks for instead."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest

from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    HalfOpenUnitInterval,
    Mismatch,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Sizes,
    convert,
    expected,
)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "asks"),
    [
        (int, [-1, np.int64(3)], [1.0, "1", True, None], "an integer"),
        (float, [1, -0.5, np.float32(2)], ["1", False, None], "a number"),
        (bool, [True, False], [0, 1, "true", None], "true or false"),
        (str, ["", "a"], [1, None], "a string"),
        (PositiveInt, [1], [0, -1, 1.5, "1", None], "an integer > 0"),
        (NonNegativeInt, [0], [-1, True], "an integer >= 0"),
        (PositiveFloat, [1e-9, 1], [0, -0.1], "a number > 0"),
        (NonNegativeFloat, [0, 0.1], [-0.1], "a number >= 0"),
        (ClosedUnitInterval, [0, 1, 0.5], [-0.1, 1.1, "a"], "a number between 0 and 1"),
        (HalfOpenUnitInterval, [0, 0.9], [1, -0.1], "a number >= 0 and < 1"),
        (OpenUnitInterval, [0.1, 0.9], [0, 1], "a number > 0 and < 1"),
        (Sizes, [(), (8, 8)], [(0,), (8, -1), (1.5,), 3, "8", None], "positive layer sizes, as [256,256]"),
        (Literal["a", "b"], ["a"], ["c", None, ["a"]], "a or b"),
        (bool | Literal["cudagraphs"], [True, "cudagraphs"], ["x", 1], "true, false or cudagraphs"),
        (PositiveInt | None, [None, 3], [0, "a"], "an integer > 0 or null"),
        (str | int | None, ["a", 1, None], [1.5, True], "a string, an integer or null"),
        (tuple[float, int], [(0.5, 1)], [(1,), (1, 2, 3), (1, 0.5), 1], "[a number, an integer]"),
        (list[PositiveInt], [[], [1]], [[0], ["a"], 1], "a list (an integer > 0 each)"),
        (dict[str, PositiveInt], [{}, {"a": 1}], [3, [1]], "a mapping"),
        (dict, [{}], [3], "dict"),
        (Any, [None, 3, "a", math.inf], [], "Any"),
    ],
)
def test_types(kind: Any, right: list[Any], wrong: list[Any], asks: str) -> None:
    assert expected(kind) == asks
    for value in right:
        assert convert(kind, value) == value
    for value in wrong:
        with pytest.raises(Mismatch) as mismatch:
            convert(kind, value)
        assert str(mismatch.value) == asks


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, np.float64("nan")])
@pytest.mark.parametrize("kind", [float, PositiveFloat, ClosedUnitInterval, float | Literal["auto"], float | None])
def test_numbers_are_finite(kind: Any, value: float) -> None:
    for whole, given in ((kind, value), (tuple[kind, ...], (1.0, value)), (dict[str, kind], {"a": value})):
        with pytest.raises(Mismatch, match="^a finite number$"):
            convert(whole, given)


def test_entries_of_a_mapping_are_looked_at() -> None:
    with pytest.raises(Mismatch, match="^an integer > 0$"):
        convert(dict[str, PositiveInt], {"a": 0})


def test_lists_become_tuples_where_a_tuple_is_asked_for() -> None:
    assert convert(Sizes | None, [8, 8]) == (8, 8)
    assert convert(list[int], (8, 8)) == [8, 8]
    assert convert(tuple[tuple[int, ...], float], [[1], 2]) == ((1,), 2)
