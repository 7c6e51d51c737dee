"""Where a run lives, `runs/<config>/<environment>/seed<seed>-<time>/`, and how a checkpoint finds its way back."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lit_mbrl.errors import UserError, require

_SHARED = "LIT_MBRL_RUN_FOLDER"
_UNNAMED = ("config", "base")


def run_family(config_files: Sequence[str], algorithm: str, environment: str, seed: object) -> Path:
    """What the folders of runs that differ only in their time have in common: `runs/sac_svg/Pendulum-v1/seed0`."""
    stems = [stem for stem in (Path(file).stem for file in config_files) if stem not in _UNNAMED]
    name = "+".join(stems) or algorithm.lower()
    return Path("runs") / name / environment.replace("/", "-").replace(":", "-") / f"seed{seed}"


def new_folder(family: Path) -> Path:
    """A name that no other run has. Processes that this one launches (several devices) get the same."""
    if "LOCAL_RANK" in os.environ:
        require(
            _SHARED in os.environ,
            "trainer.default_root_dir",
            None,
            "a folder: processes that were started one by one cannot agree on one",
        )
        return Path(os.environ[_SHARED])
    stamp = time.strftime("%Y%m%d-%H%M%S")
    if trial := os.environ.get("WANDB_RUN_ID"):  # other agents of the sweep may begin a trial in the same second
        stamp += f"-{trial}"
    folder = family.with_name(f"{family.name}-{stamp}")
    count = 2
    while folder.exists():
        folder = family.with_name(f"{family.name}-{stamp}-{count}")
        count += 1
    os.environ[_SHARED] = str(folder)
    return folder


def find_checkpoint(word: str, family: Path, root_dir: str | None) -> Path:
    """What `--ckpt_path=last` (or `best`) means: of the same config, environment and seed, the run that saved last.

    Raises:
        UserError: if there is none.
    """
    folders = [Path(root_dir)] if root_dir else list(family.parent.glob(f"{family.name}-*"))
    found = [path for folder in folders if (path := folder / "checkpoints" / f"{word}.ckpt").is_file()]
    where = root_dir or f"{family}-*"
    require(bool(found), "ckpt_path", word, f"a run to go on with, but {where} has no checkpoints/{word}.ckpt")
    return max(found, key=lambda path: path.stat().st_mtime)


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder of a checkpoint; None if it lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def make_folder(folder: Path) -> None:
    """Creates the run folder.

    Raises:
        UserError: if it cannot be written to.
    """
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            "trainer.default_root_dir", folder, f"a folder that can be written to ({error.strerror})"
        ) from error


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


@dataclass(frozen=True)
class SavedRun:
    """What a checkpoint says about its run.

    Attributes:
        path: the file.
        algorithm: class name of the algorithm.
        environment: name of the environment.
        env_steps: environment steps taken.
        rounds: rounds of updates taken.
        shapes: shape of every weight.
        optimizers: number of optimisers.
    """

    path: Path
    algorithm: str
    environment: str
    env_steps: int
    rounds: int
    shapes: Mapping[str, tuple[int, ...]]
    optimizers: int


def read_checkpoint(path: Path) -> SavedRun:
    """Reads what is needed to tell whether a run can go on from a checkpoint; the tensors stay on the disk.

    Raises:
        UserError: if the file is missing, damaged, or not a checkpoint of this application.
    """
    require(path.is_file(), "ckpt_path", path, "a checkpoint, but there is no such file")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # What torch.load raises depends on which of the file's bytes are wrong.
    except Exception as error:
        raise UserError("ckpt_path", path, "a checkpoint, but this file is damaged or something else") from error
    known = isinstance(content, dict) and {"lit_mbrl", "state_dict", "optimizer_states"} <= content.keys()
    require(known, "ckpt_path", path, "a checkpoint of lit_mbrl, but this is another program's")
    return SavedRun(
        path=path,
        **content["lit_mbrl"],
        shapes={name: tuple(value.shape) for name, value in content["state_dict"].items()},
        optimizers=len(content["optimizer_states"]),
    )
