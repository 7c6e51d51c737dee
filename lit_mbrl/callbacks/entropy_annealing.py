"""Annealing of a target entropy or of an entropy coefficient."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveFloat, PositiveInt


@options
class EntropyAnnealing(Callback):
    """Moves an attribute of the module from `initial` to `final` over `schedule_steps` environment steps.

    | form | value at step t, with s = min(t / schedule_steps, 1) |
    |---|---|
    | `"power"` | `(initial - final) (1 - s)^exponent + final` (SVG eq. 14, arXiv 2008.12775v3) |
    | `"linear"` | the same with exponent 1 |
    | `"exponential"` | `initial (final / initial)^s`; both of one sign and not 0 |

    The value depends on the environment step alone, so a resumed run continues the curve; and the length of the curve
    is an option of its own, so a shorter run does not change it. After `schedule_steps` the value stays at `final`.
    """

    section: ClassVar[str] = "trainer.callbacks"

    initial: float = field(kw_only=False)
    """Value at step 0."""
    final: float | None = field(kw_only=False)
    """Value at `schedule_steps`; null: `initial`, a constant."""
    schedule_steps: PositiveInt = field(kw_only=False)
    """T of eq. 14."""
    form: Literal["power", "linear", "exponential"] = "power"
    """The curve."""
    exponent: PositiveFloat = 1.0
    """Beta of eq. 14."""
    attribute: str = "target_entropy"
    """The module's scalar tensor that is set."""

    def __post_init__(self) -> None:
        if self.final is None:
            self.final = self.initial
        of_one_sign = self.form != "exponential" or self.initial * self.final > 0
        sign = f"the sign of initial={self.initial}, and not 0"
        require(of_one_sign, "trainer.callbacks.final", self.final, sign)

    def value(self, env_steps: int) -> float:
        """The curve at an environment step."""
        share = min(env_steps / self.schedule_steps, 1.0)
        if self.form == "exponential":
            return math.copysign(
                math.exp((1 - share) * math.log(abs(self.initial)) + share * math.log(abs(self.final))), self.initial
            )
        exponent = 1.0 if self.form == "linear" else self.exponent
        return (self.initial - self.final) * (1.0 - share) ** exponent + self.final

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that there is something to anneal."""
        if not isinstance(getattr(pl_module, self.attribute, None), torch.Tensor):
            raise OptionError(
                "trainer.callbacks.attribute",
                self.attribute,
                f"a scalar of {type(pl_module).__name__}, which has none of that name",
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Sets the value for the training step that begins."""
        getattr(pl_module, self.attribute).fill_(self.value(pl_module.env_steps))
