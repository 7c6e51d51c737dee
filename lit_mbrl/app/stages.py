"""Runs of several stages: one stage at a time, and stages that are done anew after a changed option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.app.checkpoints import CheckpointInfo, read_checkpoint, require_replay
from lit_mbrl.callbacks.checkpoint import AFTER
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.utils.errors import OptionError, require

Changes = Mapping[str, tuple[Any, Any]]


class StopAfterStage(Callback):
    """Stops the run when a stage is over, before `Checkpoint` saves.

    Attributes:
        stopped: whether it has.
    """

    def __init__(self, stage: str) -> None:
        self.stage, self.stopped = stage, False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops at the end of the stage."""
        if trainer.datamodule.update_schedule.ended_stage() == self.stage:
            self.stopped = trainer.should_stop = True


def check_stage(stage: str | None, command: str, model: Algorithm, data: Any, saved: CheckpointInfo | None) -> None:
    """Raises `OptionError` if a run has no such stage before it."""
    if stage is None:
        return
    require(command == "fit", "stage", stage, f"null: {command} trains nothing")
    names = [each.name for each in model.stages(data)]
    require(names != [], "stage", stage, f"null: a run of {type(model).__name__} has but one stage")
    begun = names.index(saved.stage) if saved is not None and saved.stage in names else 0
    left = names[begun + 1 :] if saved is not None and saved.stage_is_over else names[begun:]
    require(stage in left, "stage", stage, f"one of the stages to come: {', '.join(left) or 'there are none'}")


def restart_from(
    saved: CheckpointInfo, changes: Changes, stage_options: Mapping[str, Sequence[str]]
) -> tuple[CheckpointInfo, str | None]:
    """Chooses the checkpoint to go on from after changed options of a stage that has begun.

    Args:
        saved: the checkpoint that was asked for.
        changes: old and new value of every changed option, `model.hidden`.
        stage_options: names of the model's options by stage, in the order of the stages.

    Returns:
        The checkpoint: `saved`, or the one at the end of the stage before; and what is done anew, in words.

    Raises:
        OptionError: if there is no stage before, or no such checkpoint.
    """
    stages = list(stage_options)
    of_stage = {f"model.{name}": stages.index(stage) for stage, names in stage_options.items() for name in names}
    changed = [name for name in changes if name in of_stage]
    begun = stages.index(saved.stage) if saved.stage in stages else len(stages) - 1
    earliest = min(changed, key=of_stage.__getitem__, default=None)
    if earliest is None or of_stage[earliest] > begun:
        return saved, None
    first, (old, new) = of_stage[earliest], changes[earliest]
    stage = stages[first]
    expected = f"{old}, as in the checkpoint: stage {stage} has begun"
    if first == 0:
        raise OptionError(earliest, new, f"{expected}, and it is the first")
    path = saved.path.with_name(f"{AFTER}{stages[first - 1]}.ckpt")
    require(path.is_file(), earliest, new, f"{expected}, and there is no {path} to go back to")
    before = read_checkpoint(path)
    require_replay(before)
    anew = stages[first : begun + 1]
    what = f"stage {anew[0]} is" if len(anew) == 1 else f"stages {', '.join(anew)} are"
    return before, f"{what} done anew, since {earliest} was {old} and is {new}"
