"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def numbers(*values: float) -> list[str]:
    """Numbers that belong together, with the same decimals: one where that says enough, more for small ones."""
    largest = max(map(abs, values))
    if largest != 0 and largest < 0.1:
        return [f"{value:.3g}" for value in values]
    return [f"{value:.1f}" if largest >= 10 or largest == 0 else f"{value:.3f}" for value in values]


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of cells, the first one the header, as columns under a rule.

    Args:
        rows: cells, the same number in every row.
        right: numbers of the columns to be aligned at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
