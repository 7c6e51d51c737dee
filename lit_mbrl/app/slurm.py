"""A run as a Slurm job: told to stop in time it saves and is queued again, and then goes on where it was.

Slurm sends the signal of `--signal=USR1@90` some time before it ends a job. SIGUSR1 is what Lightning requeues at, too;
its own way, a checkpoint `hpc_ckpt_1.ckpt` in the middle of a training step, is switched off (`take_over`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

_INTERACTIVE = ("bash", "interactive")
_SECONDS = 30.0  # for `scontrol`


def job_id() -> str | None:
    """The number of the job that this process is, each task of an array its own; None outside of Slurm."""
    if os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    job = os.environ.get("SLURM_JOB_ID", "")
    return job if job.isdigit() else None


def is_requeued() -> bool:
    """Returns whether Slurm has started this job before."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return job_id() is not None and count.isdigit() and int(count) > 0


def last_checkpoint(family: Path, root_dir: str | None, checkpoints: str = "checkpoints") -> Path | None:
    """Finds what a requeued job goes on from: the newest `last.ckpt` of its own; None if it has none, or is a new job.

    Args:
        family: what the run folders of the same config, environment and seed begin with.
        root_dir: the run folder, if the command line names it.
        checkpoints: name of the folder in it.
    """
    if not is_requeued():
        return None
    folders = [Path(root_dir)] if root_dir else list(family.parent.glob(f"{family.name}-*{suffix()}*"))
    found = [path for folder in folders if (path := folder / checkpoints / "last.ckpt").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def suffix() -> str:
    """Returns the job's part of a run folder's name, `-job123`; empty outside of Slurm."""
    job = job_id()
    return "" if job is None else f"-job{job}"


def requeue(received: Collection[int]) -> str | None:
    """Has Slurm start this job again if it was SIGUSR1 that stopped it; the line to say about that."""
    job = job_id()
    if job is None or signal.SIGUSR1 not in received:
        return None
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        problem = " ".join(done.stderr.split()) or f"exit code {done.returncode}" if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = " ".join(str(error).split())
    if problem is None:
        return f"Slurm starts job {job} again, and the run goes on from this checkpoint."
    return f"Slurm does not start job {job} again: `{' '.join(command)}` says: {problem}"


def take_over(trainer: Trainer) -> None:
    """Switches off what Lightning does by itself in a Slurm job: its requeuing, and `hpc_ckpt_*.ckpt` as a start."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
    connector = trainer._checkpoint_connector
    connector.__class__ = type("OwnCheckpoints", (type(connector),), {"_hpc_resume_path": None})
