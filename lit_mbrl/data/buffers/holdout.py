"""Sequences to learn from and sequences to hold out, which have no observation in common.

Sequences overlap: of two that are drawn at random, one to learn from and one to hold out, the second has mostly been
seen in pieces of others. So the time line is divided first, into blocks of consecutive transitions, and a sequence lies
within a part:

    transitions   0 1 2 3 4 5 6 7 8 9 | 0 1 2 3 4 5 ...      |: the end of an episode
    part          t t t t . H H H H H | t t t t t t ...      H: held out, t: to learn from, .: neither

A transition holds two observations, hence the one that is neither: between two parts of the same episode its
observations belong to both.
"""

from __future__ import annotations

import numpy as np
import torch

from lit_mbrl.utils.errors import OptionError

_MOST_BLOCKS = 20  # held out: enough to be of all times, and few seams


def split_starts(ends: np.ndarray, length: int, ratio: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """First transitions of all sequences to learn from and of all to hold out; the blocks are drawn by torch.

    Args:
        ends: whether the successor of a transition is not the next one, `[n]`.
        length: transitions of a sequence.
        ratio: share of the transitions to hold out.
        most: transitions to hold out at most; at least one block is held out, which has room for a sequence.

    Raises:
        OptionError: if there are no two separate sequences.
    """
    stops = np.flatnonzero(ends) + 1
    lengths = np.diff(stops, prepend=0)  # of each run of successors
    stops, lengths = stops[lengths >= length], lengths[lengths >= length]
    budget = min(int(lengths.sum() * ratio), most)
    # Four sequences long where that leaves several blocks; with a sequence in it after the loss of both its edges.
    size = max(length + 2, budget // min(max(budget // (4 * length), 1), _MOST_BLOCKS))
    pieces = np.maximum(lengths // size, 1)
    if pieces.sum() < 2:
        raise OptionError(
            "model.rollout_schedule",
            length,
            "rollouts for which the replay has a sequence to learn from and another one to hold out; it has "
            f"{len(ends)} transitions (raise data.learning_starts or shorten the rollouts)",
        )
    run = np.repeat(np.arange(len(pieces)), pieces)
    index = np.arange(len(run)) - (pieces.cumsum() - pieces)[run]
    begin = (stops - lengths)[run]
    first, after = (begin + (index + k) * lengths[run] // pieces[run] for k in (0, 1))
    order = torch.randperm(len(run)).numpy()
    count = int(np.searchsorted((after - first)[order].cumsum(), budget, side="right"))
    chosen = order[: min(max(count, 1), len(run) - 1)]
    edges = np.zeros(len(ends) + 1, np.int64)
    edges[first[chosen]] += 1
    edges[after[chosen]] -= 1
    held = edges[:-1].cumsum() > 0
    kept = ~held
    inside = ~ends[:-1]
    kept[:-1] &= ~(held[1:] & inside)
    kept[1:] &= ~(held[:-1] & inside)
    return _starts(kept, ends, length), _starts(held, ends, length)


def _starts(part: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """First transitions of all sequences of successors that lie in a part `[n]` of the transitions."""
    windows = np.lib.stride_tricks.sliding_window_view
    if len(part) < length:
        return np.zeros(0, np.int64)
    whole = windows(part, length).all(1)
    if length > 1:
        whole &= ~windows(ends[:-1], length - 1).any(1)
    return np.flatnonzero(whole)
