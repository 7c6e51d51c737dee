"""Communication between the processes ("ranks") of a run on several devices.

With one process every function is the identity and costs nothing worth measuring. Those marked "collective" have to be
called by all ranks, in the same order. Messages go over gloo, on the CPU, so that none waits for a GPU; gradients go
over the backend of their device.

A rank that waits for the others for a minute says so, and again after four: one of them may be suspended. In an
evaluation, which rank 0 alone runs, it is ten minutes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lit_mbrl.utils.overdue import WATCH, Call

NOTICE_SECONDS, EVALUATION_SECONDS = 60.0, 600.0

T = TypeVar("T")

_gloo: dict[Any, Any] = {}


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks. Collective; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _waiting():
        dist.all_gather_object(values, value, group=_messages())
    return values


def gather_on_zero(value: T) -> list[T] | None:
    """Every rank's value on rank 0, None on the others. Collective; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    with _waiting():
        dist.gather_object(value, values, dst=0, group=_messages())
    return values


def broadcast(value: T | None) -> T:
    """Rank 0's value. Collective; anything that can be pickled."""
    values: list[Any] = [value]
    if world_size() > 1:
        with _waiting(EVALUATION_SECONDS):
            dist.broadcast_object_list(values, src=0, group=_messages())
    return values[0]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows `[n, ...]` of all ranks below each other, `[world_size * n, ...]`, on the CPU. Collective.

    `n` has to be the same on all ranks.
    """
    if world_size() == 1:
        return rows
    rows = rows.detach().cpu().contiguous()
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    with _waiting():
        dist.all_gather(parts, rows, group=_messages())
    return torch.cat(parts)


def any_of(flag: bool) -> bool:
    """Returns whether the flag is set on any rank. Collective."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([float(flag)])
    with _waiting():
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=_messages())
    return bool(flags.item())


def average_(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over the ranks, bit-equal on all of them, in one message. Collective."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _waiting():
        dist.all_reduce(flat)
    flat.div_(world_size())
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def seed_rank() -> None:
    """Gives each rank but the first random numbers of its own, which follow from the run's seed and the rank.

    Networks have to be there already: they start equal because all ranks have drawn the same numbers so far.
    """
    if rank() == 0:
        return
    words = np.random.SeedSequence([torch.initial_seed(), rank()]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))


def is_about_others(error: BaseException) -> bool:
    """Returns whether a message between ranks has failed, by the error: another one has ended, or does not answer."""
    return isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "/gloo/" in str(error))


@contextmanager
def _waiting(notice: float | None = None) -> Iterator[None]:
    """Around a message that the other ranks have to answer."""
    outer, WATCH.running = WATCH.running, Call(_what, None, notice or NOTICE_SECONDS)
    try:
        yield
    finally:
        WATCH.running = outer


def _what() -> str:
    return f"device {rank()} has been waiting for the processes of the others (is one of them suspended?)"


def _messages() -> Any:
    """The gloo group of all ranks: the default one, or (beside NCCL) one made at the first message."""
    world = dist.group.WORLD
    if dist.get_backend() == "gloo":
        return world
    if world not in _gloo:
        _gloo[world] = dist.new_group(backend="gloo")
    return _gloo[world]
