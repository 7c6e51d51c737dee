"""Finds a command's run folder and the checkpoint that it goes on from, without touching the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_mbrl.app.arguments import CHECKPOINT_WORDS, config_files, option_values
from lit_mbrl.app.checkpoints import CheckpointInfo, followed, read_checkpoint, read_last_good, require_replay
from lit_mbrl.app.output import shorten
from lit_mbrl.app.run_folder import (
    checkpoint_of_job,
    find_checkpoint,
    folder_of,
    folder_of_config,
    new_folder,
    require_no_run,
    require_usable_name,
    run_name,
)
from lit_mbrl.utils.errors import require


@dataclass(frozen=True)
class Location:
    """Run folder and checkpoint of a command.

    Attributes:
        run_folder: the folder.
        is_new: whether its name is one that we chose, which another run may take before us.
        goes_on: whether the run that is in it goes on.
        saved: what is known of the checkpoint; None for a new run.
        damage: what is wrong with the checkpoint that was asked for, if another one takes its place.
    """

    run_folder: Path
    is_new: bool
    goes_on: bool
    saved: CheckpointInfo | None = None
    damage: str | None = None


def locate(config: Any, argv: Sequence[str], training: bool) -> Location:
    """Decides on the run folder and on the checkpoint.

    Args:
        config: of the command.
        argv: the words of the user, which may send a run elsewhere: a resumed run's own configuration does not.
        training: whether the replay is needed, and the folder written to.

    Raises:
        OptionError: if there is no such checkpoint, or if a run in the folder would be overwritten.
    """
    files = config_files(argv) or [str(path) for path in config.config or () if path is not None]
    environment = config.data.init_args.env.name
    family = run_name(files, config.model.class_path.rpartition(".")[2], environment, config.seed_everything)
    checkpoints = config.checkpoint.folder
    root_dir = config.trainer.default_root_dir
    chosen = bool(option_values(argv, "--trainer.default_root_dir"))
    saved, damage = None, None
    new = training and config.ckpt_path is None
    requeued = checkpoint_of_job(family, root_dir, checkpoints) if new else None
    if config.ckpt_path in CHECKPOINT_WORDS or requeued is not None:
        runs = [str(folder) for file in files if (folder := folder_of_config(Path(file))) is not None]
        found = requeued or find_checkpoint(config.ckpt_path, family, root_dir or next(iter(runs), None), checkpoints)
        saved, problem = read_last_good(found, with_replay=training)
        if problem is not None:
            damage = f"{shorten(found)}: expected {problem}; going on from {shorten(saved.path)}"
    elif config.ckpt_path is not None:
        saved = read_checkpoint(followed(Path(config.ckpt_path)))
        if training:
            require_replay(saved)
    own = folder_of(saved.path, checkpoints) if saved else None
    if own is not None and not (chosen and root_dir):
        root_dir = None  # a folder that was moved or copied has the name of the old one in its configuration
    if not root_dir:
        launched = "LOCAL_RANK" in os.environ  # by a process that has the folder
        return Location(own or new_folder(family), own is None and not launched, own is not None, saved, damage)
    folder = Path(root_dir)
    require_usable_name(folder)
    goes_on = own is not None and own.resolve() == folder.resolve()
    if training and not goes_on and not config.trainer.fast_dev_run:
        require_no_run(folder, checkpoints)
    return Location(folder, False, goes_on, saved, damage)


def require_checkpoint(config: Any) -> None:
    """Raises `OptionError` unless there is something to evaluate."""
    require(config.ckpt_path is not None, "ckpt_path", None, "the checkpoint to evaluate")
