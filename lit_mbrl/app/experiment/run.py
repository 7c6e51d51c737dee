"""A run of an experiment: its folder, its command line, and what it was made with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lit_mbrl.app import CONF
from lit_mbrl.app.defaults import read_config
from lit_mbrl.app.experiment import sources
from lit_mbrl.utils.errors import OptionError, UsageError, require
from lit_mbrl.utils.pool import Job

_OURS = ("--config", "-c", "--seed_everything", "--trainer.default_root_dir", "--trainer.logger", "--ckpt_path")


@dataclass(frozen=True)
class ExperimentRun:
    """One seed of a config with some options, in a folder that its experiment chooses.

    Attributes:
        name: for messages.
        configs: the config files; the last one holds.
        options: further options of `fit`.
        seed: `seed_everything`.
        folder: the run folder; log and record are beside it.
        environment: all environment variables of the process.
        shown_variables: those of them that are a part of the command, as it is typed.
        fingerprint: `fingerprint` of these when the command began.
    """

    name: str
    configs: tuple[Path, ...]
    options: tuple[str, ...]
    seed: int
    folder: Path
    environment: Mapping[str, str]
    shown_variables: Mapping[str, str]
    fingerprint: str

    @property
    def log(self) -> Path:
        """File of what the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """File of what the run was made with."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def logger(self) -> str:
        """Returns the value of `trainer.logger`: none, but W&B's in a trial of a sweep."""
        return "lit_mbrl.app.loggers.WandbLogger" if "WANDB_SWEEP_ID" in self.environment else "false"

    def hold(self) -> IO[str] | None:
        """Keeps other processes of the command from making this run until the returned file is closed.

        Returns:
            The file; None if another process has it.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        file = self.folder.with_name(f"{self.folder.name}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def unchanged(self) -> bool:
        """Returns whether the config is still that of the fingerprint."""
        return fingerprint(self.configs, self.options, self.shown_variables) == self.fingerprint

    @property
    def resumable(self) -> bool:
        """Returns whether the run has a checkpoint."""
        return any((self.folder / "checkpoints").glob("*.ckpt"))

    def command(self, resume: bool) -> list[str]:
        """The arguments of `python` that begin the run, or go on with it."""
        words = ["-m", "lit_mbrl", "fit"]
        for config in self.configs:
            words += ["--config", _short(config)]
        words += [
            f"--seed_everything={self.seed}",
            f"--trainer.default_root_dir={self.folder}",
            f"--trainer.logger={self.logger}",
            *self.options,
        ]
        return [*words, "--ckpt_path=last"] if resume else words

    def command_line(self, resume: bool) -> str:
        """The command as it is typed."""
        variables = [f"{name}={value}" for name, value in self.shown_variables.items()]
        return " ".join([*variables, "python", shlex.join(self.command(resume))])

    def job(self) -> Job:
        """The process that runs it, or goes on with it; writes down what it is made with."""
        resume = self.resumable
        # A run that is resumed is also of the sources of its first part.
        earlier = (self.read_record() or {}).get("commits", []) if resume else []
        content = {
            "fingerprint": self.fingerprint,
            "commits": list(dict.fromkeys([*earlier, sources.commit()])),
            "command": self.command_line(resume),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self.record.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.record.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, self.record)
        return Job(self.name, (sys.executable, *self.command(resume)), self.log, with_sources(self.environment))

    def read_record(self) -> dict[str, Any] | None:
        """Returns what the run in the folder was made with, None if there is none."""
        try:
            record = json.loads(self.record.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or not {"fingerprint", "commits"} <= record.keys():
            raise UsageError(f"{self.record}: expected the record of an experiment's run")
        return record

    def put_aside(self, out: Path) -> None:
        """Moves the run in the folder to `superseded`, so that it can begin anew."""
        name = "-".join(commit[:16] for commit in (self.read_record() or {}).get("commits", ())) or "unknown"
        target = out / "superseded" / name / self.folder.relative_to(out)
        count = 1
        while target.exists() or target.with_name(f"{target.name}.json").exists():
            count += 1
            target = out / "superseded" / f"{name}-{count}" / self.folder.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in (self.folder, self.log, self.record):
            if source.exists():
                os.replace(source, target.with_name(source.name))


def with_sources(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that imports this package, whatever else is installed."""
    others = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    return {**environment, "PYTHONPATH": os.pathsep.join([str(sources.ROOT), *others])}


def fingerprint(configs: Sequence[Path], options: Sequence[str], variables: Mapping[str, str]) -> str:
    """SHA-256 of all that makes a run another one, but for the sources: contents of the configs, options, variables."""
    content = [[read_config(file) for file in (CONF / "base.yaml", *configs)], list(options), dict(variables)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _short(path: Path) -> str:
    """A path below the working directory relative to it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def check_overrides(command: str, overrides: Sequence[str]) -> None:
    """Raises `UsageError` if an override of `fit` is an option that the command gives itself, or none at all."""
    for word in overrides:
        if not word.startswith("--") or "=" not in word:
            raise UsageError(f"{word}: expected an option of fit, as --name=value")
        if word.partition("=")[0] in _OURS:
            raise UsageError(f"{word}: expected another option, {command} gives this one itself")


def read_seeds(text: str) -> list[int]:
    """Reads `10-19,25` as the seeds 10 to 19 and 25; raises `OptionError` for anything else."""
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = (first, last) if dash else (first, first)
        valid = all(number.isascii() and number.isdigit() for number in numbers) and int(numbers[0]) <= int(numbers[1])
        require(valid, "seeds", text, "seeds, as 10-19,25")
        seeds |= set(range(int(numbers[0]), int(numbers[1]) + 1))
    return sorted(seeds)


def check_folder(folder: Path) -> None:
    """Creates the folder of an experiment; raises `OptionError` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OptionError("out", folder, f"a folder that can be written to ({error.strerror})") from error


@contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Creates a folder of runs and keeps another process of the command out of it as long as this one lives.

    Raises:
        OptionError: if it cannot be written to, or another one has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise OptionError("out", folder, f"a folder that can be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OptionError("out", folder, f"a folder in which no other {command} is going on") from error
        yield
