"""The runs of a qualification: their folders, their command lines, and which of them are there already."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_mbrl.app import CONF
from lit_mbrl.app.commands.qualify import sources
from lit_mbrl.app.commands.qualify.paths import FloatPath
from lit_mbrl.app.commands.qualify.thresholds import Threshold
from lit_mbrl.app.defaults import read_config
from lit_mbrl.utils.errors import UsageError, require
from lit_mbrl.utils.pool import Job

_OURS = ("--config", "-c", "--seed_everything", "--trainer.default_root_dir", "--trainer.logger", "--ckpt_path")


@dataclass(frozen=True)
class PlannedRun:
    """One seed of one config on one floating-point path.

    Attributes:
        goal: the config and its threshold.
        path: the floating-point path.
        seed: `seed_everything`.
        folder: the run folder; log and record are beside it.
        overrides: further options of `fit`.
        fingerprint: `fingerprint` of these when the command began.
    """

    goal: Threshold
    path: FloatPath
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    fingerprint: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.goal.config} {self.path.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        """File of what the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """File of what the run was made with."""
        return self.folder.with_name(f"{self.folder.name}.json")

    def unchanged(self) -> bool:
        """Returns whether the config is still that of the fingerprint."""
        return fingerprint(self.goal.file, self.path, self.overrides) == self.fingerprint

    @property
    def resumable(self) -> bool:
        """Returns whether the run has a checkpoint."""
        return any((self.folder / "checkpoints").glob("*.ckpt"))

    def command(self, resume: bool) -> list[str]:
        """The arguments of `python` that begin the run, or go on with it."""
        words = ["-m", "lit_mbrl", "fit", "--config", _short(self.goal.file), f"--seed_everything={self.seed}"]
        words += [f"--trainer.default_root_dir={self.folder}", "--trainer.logger=false"]
        words += [*self.overrides, *self.path.options]  # the path's come last, which is what holds
        return [*words, "--ckpt_path=last"] if resume else words

    def command_line(self, resume: bool) -> str:
        """The command as it is typed."""
        variables = [f"{name}={value}" for name, value in self.path.variables.items()]
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
        temporary = self.record.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, self.record)
        environment = self.path.environment()
        # The runs are those of this package, whatever else is installed.
        others = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
        environment["PYTHONPATH"] = os.pathsep.join([str(sources.ROOT), *others])
        return Job(self.name, (sys.executable, *self.command(resume)), self.log, environment)

    def read_record(self) -> dict[str, Any] | None:
        """Returns what the run in the folder was made with, None if there is none."""
        try:
            record = json.loads(self.record.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or not {"fingerprint", "commits"} <= record.keys():
            raise UsageError(f"{self.record}: expected the record of a run of qualify")
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


def fingerprint(config: Path, path: FloatPath, overrides: Sequence[str]) -> str:
    """SHA-256 of all that makes a run another one, but for the sources: contents of the configs, path and options."""
    configs = [read_config(file) for file in (CONF / "base.yaml", config)]
    content = [configs, list(overrides), dict(path.variables), list(path.options)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _short(path: Path) -> str:
    """A path below the working directory relative to it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def plan(
    goals: Sequence[Threshold], paths: Sequence[FloatPath], seeds: Sequence[int], out: Path, overrides: Sequence[str]
) -> list[PlannedRun]:
    """All runs, seed by seed, so that the first results are about every config.

    Raises:
        UsageError: if an override is an option that `qualify` gives itself, or a seed is no evidence for a config.
    """
    for word in overrides:
        if not word.startswith("--") or "=" not in word:
            raise UsageError(f"{word}: expected an option of fit, as --name=value")
        if word.partition("=")[0] in _OURS:
            raise UsageError(f"{word}: expected another option, qualify gives this one itself")
    for goal in goals:
        used = [seed for seed in seeds if seed in goal.seeds_used_for_options]
        if used:
            raise UsageError(
                f"--seeds: expected seeds on which the options of {goal.config} were not chosen; "
                f"{', '.join(map(str, used))} {'was' if len(used) == 1 else 'were'} (seeds_used_for_options)"
            )
    kinds = [(goal, path, fingerprint(goal.file, path, overrides)) for goal in goals for path in paths]
    return [
        PlannedRun(goal, path, seed, out / goal.config / path.name / f"seed_{seed}", tuple(overrides), mark)
        for seed in seeds
        for goal, path, mark in kinds
    ]


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
