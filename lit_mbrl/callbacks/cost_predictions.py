"""Draws the cost that a model has predicted for the policy, step by step, beside the cost that is realised."""

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


@options
class CostPredictions(Callback):
    """Draws the expected cost of each step, with two standard deviations of it by the model, and evaluation episodes.

    The picture of an evaluation is `costs/<environment steps>.png` in the run folder, and `eval/costs` in W&B.
    """

    section: ClassVar[str] = "trainer.callbacks"

    every: PositiveInt = 1
    """Evaluations between pictures."""

    def __post_init__(self) -> None:
        self._evaluations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises `OptionError` if the algorithm predicts no costs."""
        expected = f"an algorithm that predicts its policy's costs, as PILCO, which {type(pl_module).__name__} does not"
        right = all(hasattr(pl_module, name) for name in ("predict_costs", "realised_cost"))
        require(right, "trainer.callbacks", type(self).__name__, expected)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: TensorDictBase, batch_idx: int, *args: Any
    ) -> None:
        """Draws the episodes `[K, T]` of the algorithm's own evaluation when it is time to."""
        if trainer.state.fn != "fit" or trainer.fast_dev_run or batch_idx > 0:
            return
        self._evaluations += 1
        if self._evaluations % self.every or not trainer.is_global_zero:
            return
        with torch.no_grad():
            realised = [pl_module.realised_cost(episode[episode["mask"]]).cpu() for episode in batch]
            mean, std = pl_module.predict_costs()
        path = Path(trainer.default_root_dir, "costs", f"{pl_module.env_steps}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_costs(mean.cpu(), std.cpu(), realised, path)
        for logger in trainer.loggers:
            if isinstance(logger, lightning.pytorch.loggers.WandbLogger):
                import wandb

                logger.experiment.log({"eval/costs": wandb.Image(str(path)), "env_steps": pl_module.env_steps})

    def state_dict(self) -> dict[str, Any]:
        """The number of evaluations."""
        return {"evaluations": self._evaluations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._evaluations = state_dict["evaluations"]


def draw_costs(mean: Tensor, std: Tensor, realised: list[Tensor], path: Path) -> None:
    """Draws the prediction with a tube of two standard deviations, and the costs of episodes.

    Args:
        mean: `[H]`.
        std: `[H]`.
        realised: of each episode `[T]`.
        path: the PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        panel = figure.subplots()
        step = torch.arange(1, len(mean) + 1)
        low, high = mean - 2 * std, mean + 2 * std
        panel.fill_between(step, low, high, color="#0072B2", alpha=0.25, linewidth=0, label="two standard deviations")
        panel.plot(step, mean, color="#0072B2", linewidth=1.6, label="predicted mean")
        for k, cost in enumerate(realised):
            label = "evaluation episodes" if k == 0 else None
            panel.plot(range(1, len(cost) + 1), cost, color="black", linewidth=0.7, alpha=0.6, label=label)
        top = max([float(high.max()), *(float(cost.max()) for cost in realised)])
        panel.set_ylim(min(-0.05, float(low.min())), 1.05 * max(top, 1.0))
        panel.set_xlabel("step")
        panel.set_ylabel("cost")
        panel.legend(fontsize=8, frameon=False, loc="best")
        figure.savefig(path, dpi=130)
