"""Spares the cost of callbacks where they have nothing to do."""

from __future__ import annotations

from typing import ClassVar


class NothingInsideARound:
    """A callback without Lightning's hooks around each backward pass and each optimiser step.

    A training step has three of each or more, and Lightning calls every callback's empty hook under its profiler: with
    three callbacks half a percent of SAC's training step. It skips a hook that is None. To come before `Callback` among
    the bases.
    """

    on_before_zero_grad: ClassVar[None] = None
    on_before_backward: ClassVar[None] = None
    on_after_backward: ClassVar[None] = None
    on_before_optimizer_step: ClassVar[None] = None
