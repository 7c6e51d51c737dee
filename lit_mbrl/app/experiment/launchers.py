"""Starts runs elsewhere than in processes of this machine: on a Slurm cluster (submitit) or a Ray cluster.

Working directory, run folders and logs have to be on storage that the machines share. A run that is asked to stop
saves; one whose machine has gone counts as `LOST`, and its command begins again from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_mbrl.utils.errors import OptionError, UsageError
from lit_mbrl.utils.pool import LOST, Job, Launcher, LocalLauncher, Task

LAUNCHERS = ("local", "slurm", "ray", "wandb")
_OWN = ("SLURM", "SUBMITIT", "RAY")  # variables that say where a process runs


def make_launcher(name: str, options: str, folder: Path) -> Launcher:
    """Makes a launcher by its name.

    Args:
        name: one of `LAUNCHERS` but the last, whose agents nothing starts from here.
        options: `key=value` with commas in between: parameters of submitit's executor and `cluster` (`slurm`, or
            `local` to try it); of Ray `address`, `num_cpus` and `num_gpus` (of a run).
        folder: for the launcher's own files.

    Raises:
        OptionError: for a name or an option that there is not.
        UsageError: if its package is not installed, or it cannot begin.
    """
    if name not in LAUNCHERS:
        raise OptionError("launcher", name, f"one of {', '.join(LAUNCHERS)}")
    values = _read_options(options)
    if name == "local":
        if values:
            raise OptionError("launcher-options", options, "none with --launcher=local")
        return LocalLauncher()
    return SlurmLauncher(folder, values) if name == "slurm" else RayLauncher(values)


def _read_options(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise OptionError("launcher-options", text, "key=value, with commas in between")
        try:
            values[key] = float(value) if "." in value else int(value)
        except ValueError:
            values[key] = value
    return values


def _package(name: str, launcher: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--launcher={launcher}: needs {name} (pip install 'lit_mbrl[{launcher}]')") from error


def run_command(command: Sequence[str], log: str, environment: Mapping[str, str], folder: str) -> int:
    """Runs a job's command where the launcher has brought it, and returns its exit code.

    If this process is asked to stop, so is the command, which saves; it is waited for.

    Args:
        command: program and arguments.
        log: file to which both output streams are appended.
        environment: variables of the process that launched it; where the machine has its own, these hold.
        folder: working directory.
    """
    given = {name: value for name, value in environment.items() if not name.startswith(_OWN)}
    variables = given | dict(os.environ) | {"PYTHONPATH": environment.get("PYTHONPATH", "")}
    with Path(log).open("ab") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.terminate())
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # an exception, as Ray cancels by one
            process.terminate()
            process.wait()


def _arguments(job: Job) -> tuple[list[str], str, dict[str, str], str]:
    return list(job.command), str(job.log.absolute()), dict(job.environment), os.getcwd()


class SlurmLauncher:
    """Submits each run as a Slurm job.

    Args:
        folder: for submitit's scripts and logs.
        options: parameters of submitit's executor, as `timeout_min`, `cpus_per_task`, `slurm_partition`; `cluster`.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        submitit = _package("submitit", "slurm")
        values = {"timeout_min": 60 * 24, "name": "lit_mbrl"} | dict(options)
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=values.pop("cluster", "slurm"))
            self._executor.update_parameters(**values)
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise UsageError(f"--launcher=slurm: {' '.join(str(error).split())}") from error

    def start(self, job: Job) -> Task:
        """See `Launcher`."""
        return _SlurmTask(self._executor.submit(run_command, *_arguments(job)))


class _SlurmTask:
    def __init__(self, job: Any) -> None:
        self._job, self._cancelled = job, False

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        if self._job.exception() is not None:  # it ended without a result
            return -signal.SIGTERM if self._cancelled else LOST
        return int(self._job.result())

    def terminate(self) -> None:
        self._cancelled = True
        self._job.cancel()

    kill = terminate

    def wait(self) -> None:
        with contextlib.suppress(Exception):
            self._job.wait()


class RayLauncher:
    """Runs each run as a task of a Ray cluster, or of one that is started here.

    Args:
        options: `address` of a cluster (None: one of this machine); `num_cpus`, `num_gpus` of a run.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._ray = ray = _package("ray", "ray")
        values = dict(options)
        address = values.pop("address", None)
        if unknown := sorted(set(values) - {"num_cpus", "num_gpus"}):
            raise OptionError("launcher-options", unknown[0], "address, num_cpus or num_gpus with --launcher=ray")
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address is None else {}
        try:
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"--launcher=ray: {' '.join(str(error).split())}") from error
        # A task that is lost is begun again by its experiment, which knows of its checkpoint.
        self._run = ray.remote(**({"num_cpus": 1} | values), max_retries=0)(run_command)

    def start(self, job: Job) -> Task:
        """See `Launcher`."""
        return _RayTask(self._ray, self._run.remote(*_arguments(job)))


class _RayTask:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference, self._cancelled = ray, reference, False

    def poll(self) -> int | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.RayError:
            return -signal.SIGTERM if self._cancelled else LOST

    def terminate(self) -> None:
        self._cancelled = True
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._cancelled = True
        self._ray.cancel(self._reference, force=True)

    def wait(self) -> None:
        self._ray.wait([self._reference])
