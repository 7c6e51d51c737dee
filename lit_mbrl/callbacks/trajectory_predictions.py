"""Draws what a model of observations predicts, particle by particle, beside what is observed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch.loggers
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveInt

_PANELS = 9  # numbers of the observation at most


@options
class TrajectoryPredictions(Callback):
    """Draws the first evaluation episode and open-loop predictions of it: their mean, and the spread of the particles.

    From every `horizon`-th state on, the model gets the actions that were taken and nothing else. The picture of an
    evaluation is `trajectories/<environment steps>.png` in the run folder, and `eval/trajectories` in W&B.
    """

    section: ClassVar[str] = "trainer.callbacks"

    every: PositiveInt = 1
    """Evaluations between pictures."""
    horizon: PositiveInt = 25
    """Steps of a prediction."""
    length: PositiveInt = 200
    """Steps of the episode that are drawn."""

    def __post_init__(self) -> None:
        least = f"at least horizon={self.horizon}"
        require(self.length >= self.horizon, "trainer.callbacks.length", self.length, least)
        self._evaluations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises `OptionError` if the algorithm predicts no trajectories."""
        expected = f"an algorithm with a model that predicts observations, which {type(pl_module).__name__} has not"
        name = type(self).__name__
        require(hasattr(pl_module, "predict_trajectories"), "trainer.callbacks", name, expected)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: TensorDictBase, batch_idx: int, *args: Any
    ) -> None:
        """Draws the first episode of the algorithm's own evaluation when it is time to."""
        if trainer.state.fn != "fit" or trainer.fast_dev_run or batch_idx > 0:
            return
        self._evaluations += 1
        episode = batch[0][batch[0]["mask"]][: self.length]
        if self._evaluations % self.every or len(episode) < self.horizon or not trainer.is_global_zero:
            return
        with torch.random.fork_rng(), torch.no_grad():
            predicted = self.predict(pl_module, episode)
        path = Path(trainer.default_root_dir, "trajectories", f"{pl_module.env_steps}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_trajectories(torch.cat([episode["observation"], episode["next", "observation"][-1:]]), predicted, path)
        for logger in trainer.loggers:
            if isinstance(logger, lightning.pytorch.loggers.WandbLogger):
                import wandb

                logger.experiment.log({"eval/trajectories": wandb.Image(str(path)), "env_steps": pl_module.env_steps})

    def predict(self, pl_module: Any, episode: TensorDictBase) -> dict[int, Tensor]:
        """Particles `[P, H + 1, O]` of each prediction, by the step that it begins at.

        Args:
            episode: frames `[T]`, T >= H.
        """
        starts = range(0, len(episode) - self.horizon + 1, self.horizon)
        observation = torch.stack([episode["observation"][start] for start in starts])
        actions = torch.stack([episode["action"][start : start + self.horizon] for start in starts])
        device = pl_module.device
        particles = pl_module.predict_trajectories(observation.to(device), actions.to(device)).cpu()
        return dict(zip(starts, particles, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The number of evaluations."""
        return {"evaluations": self._evaluations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._evaluations = state_dict["evaluations"]


def draw_trajectories(reality: Tensor, predicted: dict[int, Tensor], path: Path) -> None:
    """Draws each number of the observation over time, with the predictions' means and 90 % of their particles.

    Args:
        reality: `[T + 1, O]`.
        predicted: particles `[P, H + 1, O]` by the step that they begin at.
        path: the PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    reality = reality.cpu()
    panels = min(reality.shape[1], _PANELS)
    columns = 1 if panels == 1 else 2 if panels <= 4 else 3
    rows = -(-panels // columns)
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(4.5 * columns, 2.2 * rows), layout="constrained")
        for i, panel in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            if i >= panels:
                panel.set_axis_off()
                continue
            panel.plot(reality[:, i], color="black", linewidth=1.2, label="observed", zorder=3)
            for start, particles in predicted.items():
                first, steps = start == min(predicted), torch.arange(start, start + particles.shape[1])
                low, high = particles[:, :, i].quantile(torch.tensor([0.05, 0.95]), dim=0)
                panel.fill_between(
                    steps, low, high, color="#0072B2", alpha=0.25, linewidth=0, label="90 % of particles" * first
                )
                mean = particles[:, :, i].mean(0)
                panel.plot(steps, mean, color="#0072B2", linewidth=1.0, label="predicted mean" * first)
                panel.axvline(start, color="#D55E00", linewidth=0.5, alpha=0.6)
            # A model that is no good yet shall not hide the observations.
            span = float(reality[:, i].max() - reality[:, i].min()) or 1.0
            panel.set_ylim(float(reality[:, i].min()) - 0.5 * span, float(reality[:, i].max()) + 0.5 * span)
            panel.set_title(f"observation {i}", fontsize=9)
            panel.tick_params(labelsize=7)
            if i >= panels - columns:
                panel.set_xlabel("step", fontsize=8)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
        figure.savefig(path, dpi=130)
