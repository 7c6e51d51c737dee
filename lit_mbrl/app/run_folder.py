"""Run folders, `runs/<config>/<environment>/seed<seed>-<time>/`, and how a checkpoint finds its way back."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lit_mbrl.app import slurm
from lit_mbrl.app.checkpoints import saved_at
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.files import is_file

_SHARED = "LIT_MBRL_RUN_FOLDER"
_UNNAMED = ("config", "base")
_LONGEST = 100  # letters of a name that is made of others; file systems take 255 bytes
_OURS = ("config.yaml", "metrics.csv", "replay")  # what a run writes into its folder besides its checkpoints
CHECKPOINTS = "checkpoints"


def run_name(config_files: Sequence[str], algorithm: str, environment: str, seed: object) -> Path:
    """Returns the common path of runs that differ only in their time: `runs/sac_svg/Pendulum-v1/seed0`."""
    stems = [stem for stem in (Path(file).stem for file in config_files) if stem not in _UNNAMED]
    name = "+".join(stems) or algorithm.lower()
    return Path("runs") / _short(name) / _short(environment.replace("/", "-").replace(":", "-")) / f"seed{seed}"


def _short(name: str) -> str:
    """A name for a folder; what does not fit is told apart by a checksum."""
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    name = f"_{name[1:]}" if name in (".", "..") else name
    if len(name.encode()) <= _LONGEST:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST - 9].decode(errors='ignore')}-{mark}"


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
    folder = next(name for name in _names(family.with_name(f"{family.name}-{stamp}")) if not name.exists())
    os.environ[_SHARED] = str(folder)
    return folder


def claim(folder: Path) -> Path:
    """Creates a folder that `new_folder` has named, or the next one if another run was faster.

    Raises:
        OptionError: if it cannot be created.
    """
    for name in _names(folder):
        try:
            name.parent.mkdir(parents=True, exist_ok=True)
            name.mkdir()
        except FileExistsError:
            if not name.exists():
                raise _unusable(folder, OSError(errno.EEXIST, "a link in its place leads nowhere")) from None
            continue
        except OSError as error:
            raise _unusable(folder, error) from error
        os.environ[_SHARED] = str(name)
        return name
    raise AssertionError("there is always another name")


def _names(folder: Path) -> Iterator[Path]:
    yield folder
    count = 2
    while True:
        yield folder.with_name(f"{folder.name}-{count}")
        count += 1


def find_checkpoint(word: str, family: Path, root_dir: str | None, checkpoints: str = CHECKPOINTS) -> Path:
    """Finds the checkpoint of `--ckpt_path=last` or `best`: of this config, environment and seed, the last one.

    Raises:
        OptionError: if there is none, or if two are copies of each other.
    """
    found = _checkpoints(word, family, root_dir, checkpoints)
    where = root_dir or f"{family}-*"
    require(bool(found), "ckpt_path", word, f"a run to go on with, but {where} has no {checkpoints}/{word}.ckpt")
    return _newest(found, word)


def checkpoint_of_job(family: Path, root_dir: str | None, checkpoints: str = CHECKPOINTS) -> Path | None:
    """Finds the last checkpoint of a requeued Slurm job; None if it has none, or is a new job or none.

    Raises:
        OptionError: if two are copies of each other.
    """
    if not slurm.is_requeued():
        return None
    found = _checkpoints("last", family, root_dir, checkpoints, slurm.suffix())
    return _newest(found, "last") if found else None


def _checkpoints(word: str, family: Path, root_dir: str | None, checkpoints: str, job: str = "") -> list[Path]:
    folders = (
        [Path(root_dir)]
        if root_dir
        else sorted(family.parent.glob(f"{family.name}-*{job}*" if job else f"{family.name}-*"))
    )
    found = [path for folder in folders if is_file(path := folder / checkpoints / f"{word}.ckpt")]
    if not found and word == "last":  # a kill between the two at the first checkpoint
        found = [path for folder in folders if is_file(path := folder / checkpoints / "best.ckpt")]
    return found


def _newest(found: Sequence[Path], word: str) -> Path:
    if len(found) == 1:
        return found[0]
    ages = {path: saved_at(path) for path in found}
    newest = [path for path in found if ages[path] == max(ages.values())]
    both = " and ".join(map(str, newest[:2]))
    require(len(newest) == 1, "ckpt_path", word, f"a path, since these are copies of one checkpoint: {both}")
    return newest[0]


def folder_of(checkpoint: Path, checkpoints: str = CHECKPOINTS) -> Path | None:
    """The run folder of a checkpoint; None if it lies elsewhere."""
    # Names alone do not say where `last.ckpt` or `../last.ckpt` are.
    lying = checkpoint if len(checkpoint.parts) > 2 and ".." not in checkpoint.parts else checkpoint.absolute()
    lying = Path(os.path.normpath(lying))
    return lying.parent.parent if lying.parent.name == checkpoints else None


def folder_of_config(config: Path) -> Path | None:
    """The run folder that a configuration was saved in; None if it lies elsewhere."""
    folder = config.parent
    saved = config.name == "config.yaml" and ((folder / ".lock").exists() or (folder / CHECKPOINTS).is_dir())
    return folder if saved else None


def require_no_run(folder: Path, checkpoints: str = CHECKPOINTS) -> None:
    """Raises `OptionError` if a new run would overwrite something in a folder.

    A run that has ended before its first checkpoint can begin anew.
    """
    try:
        found = {path.name for path in (folder / checkpoints).glob("*.ckpt*")}
        unfinished = "last.ckpt.tmp" in found and "last.ckpt" not in found  # killed while it wrote its first one
        others = any(name.endswith(".ckpt") for name in found) and not unfinished
        foreign = [name for name in (*_OURS, checkpoints) if _has_something(folder / name)]
        ours = (folder / ".lock").exists()
    except OSError:
        return  # what is wrong with the folder is told where it is made
    option = "trainer.default_root_dir"
    require(not others, option, folder, "a new folder, or --ckpt_path=last to go on with the run that is in this one")
    expected = f"a new folder, since this one has a {foreign[0]} that no run has left there" if foreign else ""
    require(ours or not foreign, option, folder, expected)


def _has_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else os.path.lexists(path)


def require_usable_name(folder: Path) -> None:
    """Raises `OptionError` about a name that no folder can have."""
    try:
        folder.exists()
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from error


def make_folder(folder: Path, checkpoints: str = CHECKPOINTS) -> None:
    """Creates the run folder, and in it the one for checkpoints.

    Raises:
        OptionError: if it cannot be written to.
    """
    try:
        (folder / checkpoints).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in ("config.yaml", "metrics.csv"):
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder there")
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError | ValueError) -> OptionError:
    reason = getattr(error, "strerror", None) or str(error)
    return OptionError("trainer.default_root_dir", folder, f"a folder that can be written to ({reason})")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder. The lock ends with the process, however that ends.

    Raises:
        OptionError: if another run has it.
    """
    try:
        # Not through a link, which may lead to any file of the user's.
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise _unusable(folder / ".lock", error) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise OptionError(
                "trainer.default_root_dir",
                folder,
                f"a folder in which no other run is going on, but process {file.read().strip() or '?'} has one there",
            ) from error
        file.truncate(0)
        file.seek(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    for path in (folder, *folder.absolute().parents):
        try:
            if path.is_dir():
                return path
        except (OSError, ValueError):
            continue  # a name that no folder can have
    return Path("/")
