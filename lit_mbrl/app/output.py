"""Prints the application's messages, and silences those of its libraries."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_mbrl.utils.errors import printable

_HERE, _FORMAT = Path(__file__).parents[1], warnings.formatwarning
_LIGHTNING = ("lightning", "lightning.fabric", "lightning.pytorch")


@rank_zero_only
def print_rank_zero(line: str) -> None:
    """Prints a line, or several, once however many processes there are."""
    print(printable(line, keep="\n"), flush=True)


def evaluation(metrics: Mapping[str, Tensor]) -> str:
    """The result of the last evaluation."""
    return f"eval return {metrics['eval/return']:.1f} +- {metrics['eval/return_std']:.1f}"


def shorten(path: Path) -> Path:
    """The path relative to the working directory, if it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def has_screen() -> bool:
    """Returns whether there is one to open windows on."""
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return named or sys.platform in ("darwin", "win32")


def summary(
    done: str,
    metrics: Mapping[str, Tensor],
    folder: Path,
    window: bool,
    checkpoints: str = "checkpoints",
    trust: bool = False,
) -> str:
    """The line at the end of a run: what it has done, its last evaluation, and where things are.

    Args:
        window: whether the environment can be watched in one.
        checkpoints: name of the folder for checkpoints.
        trust: whether its configuration names modules of the user's own.
    """
    parts = [done] + ([evaluation(metrics)] if "eval/return" in metrics else [])
    found = [name for name in ("last", "best") if (folder / checkpoints / f"{name}.ckpt").exists()]
    if not found:
        return ", ".join(parts) + "."
    files = "{last,best}" if len(found) == 2 else found[0]
    best = shlex.quote(str(shorten(folder / checkpoints / f"{found[-1]}.ckpt")))
    watch = f"video --ckpt_path {best}"
    if window:
        watch = f"validate --ckpt_path {best} --data.eval_episodes=1 --data.env.kwargs.render_mode=human"
    watch += " --trust" * trust
    there = [name for name in ("metrics.csv", f"{checkpoints}/{files}.ckpt", "config.yaml")]
    there = [name for name in there if "/" in name or (folder / name).is_file()]
    where = f"Everything is in {shorten(folder)}: {', '.join(there)}"
    return f"{', '.join(parts)}. {where}. Watch it: python -m lit_mbrl {watch}"


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silences what libraries say about themselves; what this application says stays, and so do real warnings."""
    handlers = [handler for name in _LIGHTNING for handler in logging.getLogger(name).handlers]
    torchrl = logging.getLogger("torchrl")
    torchrl.addFilter(_no_info)
    # It warns of every compilation on a machine that has CUDA's tools and no GPU.
    compiler = logging.getLogger("torch.utils.cpp_extension")
    compiler.addFilter(_not_about_cuda)
    for handler in handlers:
        handler.addFilter(_not_lightnings_info)
    original, warnings.formatwarning = warnings.formatwarning, _formatted
    try:
        with warnings.catch_warnings():
            # Lightning's own uses of deprecated names, of torch and of jsonargparse.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
            # It takes an epoch that is shorter than the logging interval for a mistake.
            warnings.filterwarnings("ignore", message=r"The number of training batches .* is smaller than the logging")
            # A run that was killed after its last checkpoint is resumed with nothing left to do.
            loaders = "(TrainLoader|CombinedLoader)"
            warnings.filterwarnings("ignore", message=rf"Total length of `{loaders}` across ranks is zero")
            # We refuse it.
            warnings.filterwarnings("ignore", message=r"You passed `Trainer\(accelerator='cpu', precision='16")
            yield
    finally:
        warnings.formatwarning = original
        torchrl.removeFilter(_no_info)
        compiler.removeFilter(_not_about_cuda)
        for handler in handlers:
            handler.removeFilter(_not_lightnings_info)


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours is one line for the user; where in the code it stands is for those of others."""
    if Path(filename).is_relative_to(_HERE):
        return f"warning: {printable(str(message))}\n"
    return _FORMAT(message, category, filename, lineno, line)


def _not_lightnings_info(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or f"{os.sep}lightning{os.sep}" not in record.pathname


def _not_about_cuda(record: logging.LogRecord) -> bool:
    return "No CUDA runtime" not in record.getMessage()


def _no_info(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO
