"""Says where a bound of ours changes what the networks see."""

from __future__ import annotations

import sys

from lightning.pytorch import Callback, LightningModule, Trainer


class NormalizerBounds(Callback):
    """Warns once, at the end of an epoch, of observations whose standard deviation the normaliser clips."""

    def __init__(self) -> None:
        self.said = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the statistics."""
        normalizer = getattr(pl_module, "normalizer", None)
        if self.said or normalizer is None or not (clipped := normalizer.clipped()):
            return
        self.said = True
        lowest, highest = normalizer.std_bounds
        index, std = max(clipped, key=lambda entry: max(lowest / entry[1], entry[1] / highest))
        if trainer.is_global_zero:
            print(
                f"warning: the standard deviation of {len(clipped)} of {normalizer.dim} observations is outside of "
                f"[{lowest:g}, {highest:g}] and is clipped, that of number {index} is {std:.3g}: other bounds are "
                "--model.normalize_observations=[lowest,highest]",
                file=sys.stderr,
                flush=True,
            )
