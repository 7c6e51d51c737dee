"""Where a run lives, `runs/<config>/<environment>/seed<seed>-<time>/`, and how a checkpoint finds its way back."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_mbrl.app import slurm
from lit_mbrl.data.buffers.files import File, damaged, files_of
from lit_mbrl.utils.errors import UserError, require
from lit_mbrl.utils.files import damaged_record

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
    stamp += slurm.suffix()  # by which the job finds its folder again when it is requeued
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


def read_last_good(path: Path, with_replay: bool) -> tuple[SavedRun, str | None]:
    """The checkpoint or, if it is damaged, the newest whole one beside it, and then what is wrong with the first.

    Args:
        path: a checkpoint of a run folder.
        with_replay: whether its replay has to be whole, too.

    Raises:
        UserError: about the first one, if none is whole.
    """
    others = sorted(set(path.parent.glob("*.ckpt")) - {path}, key=lambda file: file.stat().st_mtime, reverse=True)
    problem: UserError | None = None
    for candidate in (path, *others):
        try:
            saved = read_checkpoint(candidate)
            if with_replay:
                require_replay(saved)
        except UserError as error:
            problem = problem or error
        else:
            return saved, None if problem is None else problem.expected
    assert problem is not None  # the first candidate was not whole
    raise problem


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder. The lock ends with the process, however that ends.

    Raises:
        UserError: if another run has it.
    """
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                "trainer.default_root_dir",
                folder,
                f"a folder in which no other run is going on, but process {file.read().strip() or '?'} has one there",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


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
        replay: the files that hold its replay, in the folder `replay` beside the checkpoint.
        config: its configuration, as in `config.yaml`; None if it was not run by the command line.
        devices: number of processes that trained together.
    """

    path: Path
    algorithm: str
    environment: str
    env_steps: int
    rounds: int
    shapes: Mapping[str, tuple[int, ...]]
    optimizers: int
    replay: tuple[File, ...] = ()
    config: Mapping[str, Any] | None = None
    devices: int = 1


def read_checkpoint(path: Path) -> SavedRun:
    """Reads what is needed to tell whether a run can go on from a checkpoint; the tensors stay on the disk.

    Raises:
        UserError: if the file is missing, damaged, or not a checkpoint of this application.
    """
    require(path.is_file(), "ckpt_path", path, "a checkpoint, but there is no such file")
    whole = "a checkpoint, but this file is damaged or something else"
    try:
        require(damaged_record(path) is None, "ckpt_path", path, whole)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # What these raise depends on which of the file's bytes are wrong.
    except Exception as error:
        raise UserError("ckpt_path", path, whole) from error
    known = isinstance(content, dict) and {"lit_mbrl", "state_dict", "optimizer_states"} <= content.keys()
    require(known, "ckpt_path", path, "a checkpoint of lit_mbrl, but this is another program's")
    return SavedRun(
        path=path,
        **content["lit_mbrl"],
        shapes=weight_shapes(content["state_dict"]),
        optimizers=len(content["optimizer_states"]),
        replay=tuple(files_of(content)),
        config=yaml.safe_load(content["config"]) if "config" in content else None,
    )


def weight_shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight; what a module remembers besides (noise of running episodes) may have any, and gets ()."""
    return {name: () if name.endswith("_extra_state") else tuple(value.shape) for name, value in state.items()}


def require_replay(saved: SavedRun) -> None:
    """Raises `UserError` if a file of the checkpoint's replay is missing or damaged. Evaluating it needs none."""
    file = damaged(saved.path.parent / "replay", saved.replay)
    require(file is None, "ckpt_path", saved.path, f"a checkpoint with its replay, but {file} is missing or damaged")
