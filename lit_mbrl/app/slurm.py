"""A run as a Slurm job: told to stop in time it saves and is queued again, and then goes on where it was.

Slurm sends the signal of `--signal=USR1@90` some time before it ends a job. SIGUSR1 is what Lightning requeues at, too;
its own way, a checkpoint `hpc_ckpt_1.ckpt` in the middle of a training step, is switched off (`without_requeue`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from typing import Any

from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
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


def without_requeue(plugins: Any) -> list[Any]:
    """Adds to the trainer's plugins that Lightning does not requeue a Slurm job itself."""
    given = [] if plugins is None else list(plugins) if isinstance(plugins, list | tuple) else [plugins]
    # The order in which Lightning looks for a cluster: torchrun may run inside of Slurm.
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in given)
    return [*given, SLURMEnvironment(auto_requeue=False)] if slurm and not chosen else given


def leave_checkpoints(trainer: Trainer) -> None:
    """Keeps Lightning from starting with an `hpc_ckpt_*.ckpt` in the run folder, which it has no option for."""
    connector = trainer._checkpoint_connector
    connector.__class__ = type("OwnCheckpoints", (type(connector),), {"_hpc_resume_path": None})
