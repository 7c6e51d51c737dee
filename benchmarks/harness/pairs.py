"""Interleaved measurements and their ratios.

The same code moves by a fifth within minutes on a shared machine, so only ratios of neighbours in time mean something:
contenders take turns in short blocks, A B C C B A ..., and each ratio is of two sums over the same stretch of time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.median)} [{number(self.low)}, {number(self.high)}]"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of some values; one value is all three."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The ratio within each pair."""
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    pairs: int,
    blocks: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
    """Seconds of every contender in every pair.

    Args:
        contenders: each runs one block of its work and returns the seconds it took.
        pairs: how many sums there are.
        blocks: turns that a contender takes in each of them.
        say: hears of the progress.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for pair in range(pairs):
        for name in order:
            seconds[name].append(0.0)
        for _ in range(blocks):
            for name in order:
                seconds[name][pair] += contenders[name]()
            order.reverse()  # so that a drift of the machine meets everybody alike
        say(f"pair {pair + 1} of {pairs}")
    return seconds


def calls(function: Callable[[], object], count: int) -> Callable[[], float]:
    """A contender whose block is `count` calls."""

    def block() -> float:
        start = time.perf_counter()
        for _ in range(count):
            function()
        return time.perf_counter() - start

    return block


def number(value: float) -> str:
    """Three significant digits, thousands whole."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"
