"""No optimiser ever steps with a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import TrainingError

MAX_SKIPPED = 100


class NonFiniteGuard:
    """Leaves out the gradient steps whose loss or gradient is not finite, and stops the run or counts them.

    A run of which nothing is left does not go on, whatever the action: after `MAX_SKIPPED` steps of an update in a row.

    On a CPU the answer is there at once. On an accelerator it stays on the device, the fused optimiser reads it there
    (`found_inf`), and it is fetched with the metrics and before a checkpoint: a run stops late, but its weights are
    still those of the last good step of every update.

    Under a gradient scaler (16-bit precision) infinite gradients are the scaler's way of finding its scale; it leaves
    those steps out by itself, and the loss alone is looked at.

    Attributes:
        action: `"stop"` raises `TrainingError`; `"skip"` counts, in the metric `faults/skipped_<update>`.
        train_step: number of the running training step, for messages.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        self.action, self.train_step = action, 0
        self.skipped: dict[str, int] = {}
        self._in_a_row: dict[str, int] = {}  # steps of an update left out since the last one that was taken
        self._pending: list[tuple[str, int, Tensor]] = []

    def check(self, name: str, optimizer: Any, loss: Tensor, gradients: list[Tensor | None], scaled: bool) -> bool:
        """Returns whether the update's step may be taken; on an accelerator True, and the optimiser leaves it out.

        Args:
            name: the update.
            optimizer: the optimiser that would step.
            loss: scalar.
            gradients: of the update's parameters.
            scaled: whether a gradient scaler looks after the gradients.
        """
        looked_at = [] if scaled else [gradient for gradient in gradients if gradient is not None]
        if loss.device.type == "cpu" and distributed.world_size() == 1:
            if math.isfinite(loss.item()) and _are_finite(looked_at):
                if self._in_a_row:
                    self._in_a_row.pop(name, None)
                return True
            self._count(name, self.train_step)
            return False
        total = torch.stack([loss.detach(), *torch._foreach_norm(looked_at)]).sum()
        flag = (~torch.isfinite(total)).float().reshape(1)
        distributed.average_([flag])  # with several processes all leave the step out if one has to
        flag = (flag > 0).float().squeeze(0)
        self._pending.append((name, self.train_step, flag))
        optimizer.found_inf = flag
        return True

    def record(self, names: list[str], finite: Tensor) -> None:
        """Records which steps of a compiled training step were finite, and so taken.

        Args:
            names: the update of each step.
            finite: `[steps]`, bool.
        """
        if finite.device.type == "cpu":
            if not finite.all():
                for name, flag in zip(names, finite.tolist(), strict=True):
                    self._note(name, self.train_step, not flag)
            elif self._in_a_row:
                self._in_a_row.clear()
        else:
            flags = (~finite).float().unbind()
            self._pending += [(name, self.train_step, flag) for name, flag in zip(names, flags, strict=True)]

    def flush(self) -> None:
        """Fetches what is still on the device; raises `TrainingError` if a step was left out and is to stop the run."""
        pending, self._pending = self._pending, []
        if pending:
            flags = torch.stack([flag for _, _, flag in pending]).tolist()
            for (name, train_step, _), flag in zip(pending, flags, strict=True):
                self._note(name, train_step, bool(flag))

    def count_frames(self, frames: int) -> None:
        """Counts steps of the environment that were left out since an observation or a reward was not finite."""
        self.skipped["frames"] = self.skipped.get("frames", 0) + frames

    def metrics(self) -> dict[str, float]:
        """Steps left out so far, of the updates that had any (and `frames`): `faults/skipped_<update>`."""
        return {f"faults/skipped_{name}": float(count) for name, count in self.skipped.items()}

    def _note(self, name: str, train_step: int, skipped: bool) -> None:
        if skipped:
            self._count(name, train_step)
        else:
            self._in_a_row.pop(name, None)

    def _count(self, name: str, train_step: int) -> None:
        if self.action == "stop":
            raise TrainingError(
                f"the loss or the gradient of {name!r} is not finite in training step {train_step:,}; the step "
                "was not taken (--non_finite=skip goes on without it)"
            )
        self.skipped[name] = self.skipped.get(name, 0) + 1
        self._in_a_row[name] = count = self._in_a_row.get(name, 0) + 1
        if count >= MAX_SKIPPED:
            raise TrainingError(
                f"the loss or the gradient of {name!r} was not finite in {count} steps in a row, up to training step "
                f"{train_step:,}: nothing is learnt any more, so the run stops in spite of --non_finite=skip"
            )


def _are_finite(gradients: list[Tensor]) -> bool:
    """Returns whether all squared 2-norms, the cheapest reductions, are finite: a gradient of 1e19 counts as infinite.

    It might as well be.
    """
    for gradient in gradients:
        if gradient.dtype is torch.float32:
            values = gradient.numpy().reshape(-1)  # a copy if it is not contiguous
            square = values.dot(values)
        else:
            square = gradient.norm()
        if not math.isfinite(square):
            return False
    return True
