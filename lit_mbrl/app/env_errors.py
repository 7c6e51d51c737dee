"""Describes errors of an environment: the traceback of what it raised, and what its user should know before a run."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from lit_mbrl.app.output import print_rank_zero, shorten
from lit_mbrl.envs import EnvConfig, Spec
from lit_mbrl.envs.guard import EnvFailed
from lit_mbrl.utils import distributed

FILE = "environment_error.txt"


def with_traceback(error: BaseException, folder: Path | None = None) -> str:
    """The text of an error and, if an environment's exception is behind it, the file that has its traceback now.

    Args:
        error: what is going to be said.
        folder: the run folder; None, or one that does not exist: a file of its own among the temporary ones.
    """
    failed: BaseException | None = error
    while failed is not None and not isinstance(failed, EnvFailed):
        failed = failed.__cause__
    if not isinstance(failed, EnvFailed) or not failed.details:
        return str(error)
    text = f"{failed}\n\n{failed.details}"
    try:
        if folder is not None and folder.is_dir():
            path = folder / FILE
            path.write_text(text)
        else:
            descriptor, name = tempfile.mkstemp(prefix="lit_mbrl-", suffix=".txt", text=True)
            path = Path(name)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
    except OSError as problem:
        return f"{error} (its traceback cannot be written to a file: {problem.strerror})"
    return f"{error} (traceback: {shorten(path)})"


def say_remarks(spec: Spec, config: EnvConfig) -> None:
    """Says what is odd about an environment, and when evaluation ends an episode that has no end of its own."""
    if distributed.rank() == 0:
        for remark in spec.remarks:
            print(f"warning: {remark}", file=sys.stderr, flush=True)
    if spec.max_episode_steps is None:
        print_rank_zero(
            f"{spec.name} names no time limit: an evaluation episode that does not end is cut after "
            f"{config.max_eval_steps:,} steps (data.env.max_eval_steps)"
        )
