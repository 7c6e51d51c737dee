"""Buffers that an algorithm asks for, before they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Buffer(Protocol):
    """Specification of a buffer besides the experience, which is in every checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class BufferSpec:
    """A buffer before it is made.

    Attributes:
        make: makes it empty, on a device.
        nbytes: memory that it takes at the most.
        text: what it is and how large, for the start of a run.
        option: what to lower if it does not fit into memory.
    """

    make: Callable[[torch.device], Buffer]
    nbytes: int = 0
    text: str = ""
    option: str = "data.capacity"
