"""Draws what a world model reconstructs and imagines, beside what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch.loggers
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt

_COLUMNS = 18  # images side by side at most


@options
class OpenLoopPredictions(Callback):
    """Draws the first evaluation episode, its reconstruction and its continuation by imagination, as rows of images.

    The strip of an evaluation is `strips/<environment steps>.png` in the run folder, and `eval/strip` in W&B. The
    imagination sees the first `context` images, then only the actions; the last row is where it goes wrong.
    """

    section: ClassVar[str] = "trainer.callbacks"

    every: PositiveInt = 1
    """Evaluations between strips."""
    context: PositiveInt = 5
    """Images that the imagination has seen."""
    length: PositiveInt = 50
    """Frames of the episode that the strip is about, of which up to 18 are shown."""

    def __post_init__(self) -> None:
        longer = f"more than context={self.context}"
        require(self.length > self.context, "trainer.callbacks.length", self.length, longer)
        self._evaluations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises `OptionError` if there are no images, or the algorithm imagines none."""
        data: Any = trainer.datamodule
        name = type(pl_module).__name__
        require(
            hasattr(pl_module, "reconstruct") and hasattr(data, "eval_episode"),
            "trainer.callbacks",
            "OpenLoopPredictions",
            f"an algorithm whose world model draws images, which {name} with {type(data).__name__} has not",
        )
        require(
            data.spec.pixels,
            "trainer.callbacks",
            "OpenLoopPredictions",
            "data.env.pixels; for vectors there is lit_mbrl.callbacks.TrajectoryPredictions",
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws a strip when it is time to."""
        if trainer.state.fn != "fit" or trainer.fast_dev_run:
            return
        self._evaluations += 1
        sequence = trainer.datamodule.eval_episode  # of the process that plays
        if self._evaluations % self.every or sequence is None or sequence.shape[1] <= self.context:
            return
        sequence = sequence[:, : self.length]
        with torch.random.fork_rng(), torch.no_grad():
            rows = pl_module.reconstruct(sequence.to(pl_module.device), self.context)
        path = Path(trainer.default_root_dir, "strips", f"{pl_module.env_steps}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_strip(sequence["observation"], rows, self.context, path)
        for logger in trainer.loggers:
            if isinstance(logger, lightning.pytorch.loggers.WandbLogger):
                import wandb

                logger.experiment.log({"eval/strip": wandb.Image(str(path)), "env_steps": pl_module.env_steps})

    def state_dict(self) -> dict[str, Any]:
        """The number of evaluations."""
        return {"evaluations": self._evaluations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._evaluations = state_dict["evaluations"]


def save_strip(reality: Tensor, rows: dict[str, Tensor], context: int, path: Path) -> None:
    """Draws the first sequence of images, the rows below it and the difference of the last row from reality.

    Args:
        reality: uint8 `[B, T, C, h, w]`.
        rows: uint8 images of the same shape under their names.
        context: images before the line, from which on the last row is imagined.
        path: the PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    seen = reality[0].cpu().short()
    images = {"reality": seen} | {name: row[0].cpu().short() for name, row in rows.items()}
    images["difference"] = 128 + (list(images.values())[-1] - seen) // 2
    frames = np.unique(np.linspace(0, len(seen) - 1, min(len(seen), _COLUMNS)).round().astype(int))
    height, width = seen.shape[-2:]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(0.6 * len(frames) + 1.0, 0.6 * len(images) + 0.25), layout="constrained")
        panel = figure.subplots()
        tiles = [torch.cat([row[t] for t in frames.tolist()], -1) for row in images.values()]
        image = torch.cat(tiles, -2).movedim(0, -1).byte().numpy()
        image = image if image.shape[-1] == 3 else image[..., 0]
        panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        panel.set_xticks((np.arange(len(frames)) + 0.5) * width, [str(t) for t in frames], fontsize=7)
        panel.set_yticks((np.arange(len(images)) + 0.5) * height, list(images), fontsize=7)
        panel.tick_params(length=0)
        panel.axvline(np.searchsorted(frames, context) * width - 0.5, color="#D55E00", linewidth=1.5)
        figure.savefig(path, dpi=160)
