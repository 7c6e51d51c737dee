"""Checkpoints as the command line sees them: whether a run can go on from a file, and what it says about its run."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lit_mbrl.data.buffers.files import File, files_of, find_corrupt
from lit_mbrl.utils.errors import OptionError, printable, require
from lit_mbrl.utils.files import damaged_record, is_file
from lit_mbrl.utils.yaml import load_yaml

FORMAT = 1  # of the files that this version writes
_KINDS = {"algorithm": str, "environment": str, "env_steps": int, "train_steps": int, "devices": int}
_KINDS |= {"stage": str, "stage_is_over": bool}
_OPTIONAL = {"devices", "stage", "stage_is_over"}
# Functions that take a checkpoint's entries back.
_LOADING = {"load_state_dict", "on_load_checkpoint", "load_data", "set_env_state", "set_carrier", "set_random_state"}
_LOADING |= {"set_extra_state", "restore", "restore_model", "restore_optimizers", "restore_callbacks"}


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's information about its run.

    Attributes:
        path: the file.
        algorithm: class name of the algorithm.
        environment: name of the environment.
        env_steps: environment steps taken.
        train_steps: training steps taken.
        shapes: shape of every weight.
        optimizers: number of optimisers.
        replay: the files that hold its replay, in the folder `replay` beside the checkpoint.
        config: its configuration, as in `config.yaml`; None if it was not run by the command line.
        devices: number of processes that trained together.
        stage: the running one of several; None: there was but one.
        stage_is_over: whether it was at its end.
    """

    path: Path
    algorithm: str
    environment: str
    env_steps: int
    train_steps: int
    shapes: Mapping[str, tuple[int, ...]]
    optimizers: int
    replay: tuple[File, ...] = ()
    config: Mapping[str, Any] | None = None
    devices: int = 1
    stage: str | None = None
    stage_is_over: bool = False


def require_file(option: str, path: Path) -> None:
    """Raises `OptionError` if there is no such file; of a folder the message says which checkpoints it has."""
    expected = "a checkpoint, but there is no such file"
    if os.path.isdir(path):  # of names that are too long it says no
        found = [
            str(file.relative_to(path)) for name in ("last", "best") for file in sorted(path.rglob(f"{name}.ckpt"))
        ]
        expected = f"a checkpoint, but this is a folder{f', which has {chr(32).join(found[:4])}' if found else ''}"
    require(is_file(path), option, path, expected)


def followed(path: Path) -> Path:
    """The file itself, if the path is a link to a checkpoint: its replay and its run folder are there."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def read_checkpoint(path: Path) -> CheckpointInfo:
    """Reads what is needed to tell whether a run can go on from a checkpoint; the tensors stay on the disk.

    Raises:
        OptionError: if the file is missing, damaged, or not a checkpoint of this version of the application.
    """
    content = _content(path, whole=True)
    try:
        about, states = content["lit_mbrl"], content["state_dict"]
        for name, kind in _KINDS.items():
            if name not in about and name in _OPTIONAL:
                continue
            if not isinstance(about[name], kind):
                raise TypeError(name)
        return CheckpointInfo(
            path=path,
            **{
                name: printable(about[name]) if kind is str else about[name]
                for name, kind in _KINDS.items()
                if name in about
            },
            shapes=weight_shapes(states),
            optimizers=len(content["optimizer_states"]),
            replay=tuple(files_of(content)),
            config=load_yaml(content["config"], "ckpt_path", path) if "config" in content else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, OptionError):
            raise
        raise wrong_entries(path, error) from error


def saved_config(path: Path) -> str | None:
    """The configuration in a checkpoint, as text; None if it was not run by the command line.

    Raises:
        OptionError: if it is no checkpoint.
    """
    text = _content(path, whole=False).get("config")
    require(text is None or isinstance(text, str), "ckpt_path", path, "a checkpoint whose entry config is a text")
    return text


def saved_at(path: Path) -> float:
    """Seconds since the epoch when a checkpoint was written, which copies of it share.

    Files of earlier versions do not say; theirs is the file's date.
    """
    try:
        return float(_content(path, whole=False)["saved_at"])
    except (OptionError, KeyError, TypeError, ValueError):
        return path.stat().st_mtime


def _content(path: Path, whole: bool) -> dict[str, Any]:
    """The file's entries.

    Args:
        whole: compare every record with its checksum, too.
    """
    require_file("ckpt_path", path)
    expected = "a checkpoint, but this file is damaged or something else"
    try:
        require(not whole or damaged_record(path) is None, "ckpt_path", path, expected)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # What these raise depends on which of the file's bytes are wrong.
    except Exception as error:
        if isinstance(error, PermissionError):
            expected = f"a checkpoint that can be read ({error.strerror})"
        raise OptionError("ckpt_path", path, expected) from error
    known = isinstance(content, dict) and {"lit_mbrl", "state_dict", "optimizer_states"} <= content.keys()
    require(known, "ckpt_path", path, "a checkpoint of lit_mbrl, but this is another program's")
    version = content.get("format", FORMAT)
    newer = f"a checkpoint of format {FORMAT}, but this one has format {version}: it is a newer version's"
    require(isinstance(version, int) and version <= FORMAT, "ckpt_path", path, newer)
    return content


def wrong_entries(path: Path, error: BaseException) -> OptionError:
    """The error about a file that is whole and yet cannot be taken back."""
    text = (str(error).splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {text[:200]}"
    return OptionError("ckpt_path", path, f"a checkpoint with the entries that this version writes ({reason})")


def raised_while_loading(error: BaseException) -> bool:
    """Returns whether an error comes from taking a checkpoint's entries back."""
    return any(frame.name in _LOADING for frame in traceback.extract_tb(error.__traceback__))


def read_last_good(path: Path, with_replay: bool) -> tuple[CheckpointInfo, str | None]:
    """The checkpoint or, if it is damaged, the furthest whole one beside it, and then what is wrong with the first.

    Args:
        path: a checkpoint of a run folder.
        with_replay: whether its replay has to be whole, too.

    Raises:
        OptionError: about the first one, if none is whole.
    """
    try:
        return _read_good(path, with_replay), None
    except OptionError as error:
        problem = error
    found = []
    for candidate in sorted(set(path.parent.glob("*.ckpt")) - {path}):
        try:
            found.append(_read_good(candidate, with_replay))
        except OptionError:
            continue
    if not found:
        raise problem
    return max(found, key=lambda saved: (saved.env_steps, saved.train_steps)), problem.expected


def _read_good(path: Path, with_replay: bool) -> CheckpointInfo:
    saved = read_checkpoint(path)
    if with_replay:
        require_replay(saved)
    return saved


def weight_shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight; what a module remembers besides (noise of running episodes) may have any, and gets ()."""
    return {name: () if name.endswith("_extra_state") else tuple(value.shape) for name, value in state.items()}


def require_replay(saved: CheckpointInfo) -> None:
    """Raises `OptionError` if a file of the checkpoint's replay is missing or damaged. Evaluating it needs none."""
    file = find_corrupt(saved.path.parent / "replay", saved.replay)
    require(file is None, "ckpt_path", saved.path, f"a checkpoint with its replay, but {file} is missing or damaged")
