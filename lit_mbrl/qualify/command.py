"""The command: its options, the runs one after the other, and the verdict."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lit_mbrl.cli import CONF
from lit_mbrl.errors import UserError
from lit_mbrl.options import OptionParser, positive_integer
from lit_mbrl.pool import Finished, Job, Pool
from lit_mbrl.qualify import sources
from lit_mbrl.qualify.paths import PATHS, FloatPath, read_paths
from lit_mbrl.qualify.plan import PlannedRun, plan, read_seeds
from lit_mbrl.qualify.report import as_table, duration, markdown, read_results, seed_ranges, write_results
from lit_mbrl.qualify.results import SHARE, Evaluations, read_evaluations, summarize
from lit_mbrl.qualify.thresholds import Threshold, choose, read_thresholds
from lit_mbrl.user_errors import OneLine

_DESCRIPTION = f"""Trains configs over many seeds, and on several floating-point paths, and says whether they dependably
learn: whether at least {SHARE:.0%} of the seeds end at the config's threshold (conf/qualification.yaml) or above. Each
run is a process of its own. The same command again goes on where it was interrupted. What follows -- is given to every
run, as -- --data.total_frames=400. Exit code 0: every config learns on every path; 1: one does not, or a run failed;
2: a mistake in the command line; 130, 143: interrupted."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    try:
        return qualify(argv)
    except (UserError, OneLine) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def qualify(argv: Sequence[str]) -> int:
    """Reads the options, runs what is missing, and reports.

    Raises:
        UserError: for a wrong option.
        OneLine: for a wrong config, seed or folder.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, overrides = _parser().parse_intermixed_args(words[:end]), words[end + 1 :]
    if options.table is not None:
        print(markdown(read_results(Path(options.table))))
        return 0
    goals = choose(read_thresholds(Path(options.thresholds)), options.configs)
    paths, seeds = read_paths(options.paths), read_seeds(options.seeds)
    size = sources.cores() if options.jobs is None else positive_integer("jobs", options.jobs)
    episodes = positive_integer("random-episodes", options.random_episodes)
    out = Path(options.out)
    runs = plan(goals, paths, seeds, out, overrides)
    status = _Status.of(runs, options.reuse)
    if options.dry_run:
        print(status.describe())
        print("\n".join(run.command_line() for run in status.todo))
        return 0
    machine = {path.name: sources.probe(path) for path in paths}
    for old in status.superseded:
        old.put_aside(out)
    print(status.describe(), flush=True)
    with Pool(size) as pool:
        progress = _Progress(status, size)
        for finished in pool.run(progress.jobs()):
            progress.add(finished, pool.stopped is not None)
    if pool.stopped is not None:
        print(f"Stopped: {progress.done} of {len(runs)} runs are finished. The same command goes on.", file=sys.stderr)
        return 128 + pool.stopped
    command = ["python", "-m", "lit_mbrl", "qualify", *options.configs, f"--seeds={options.seeds}"]
    command += [f"--paths={options.paths}", *(["--", *overrides] if overrides else [])]
    common = {
        "command": shlex.join(command),
        "date": time.strftime("%Y-%m-%d"),
        "versions": sources.versions(),
        "processor": sources.processor(),
    }
    measure = _RandomPolicy(episodes)
    results = [
        _results([run for run in runs if run.goal is goal], machine, common, measure)
        for goal in goals
        if any(read_evaluations(run.folder, goal.threshold) for run in runs if run.goal is goal)
    ]
    folder = Path(options.results) if options.results else out
    written = [write_results(folder, each) for each in results]
    if results:
        print(f"\n{as_table(results)}\n")
    for name, why in progress.failed.items():
        print(f"failed: {name}: {why}")
    for each in results:
        verdict = each["verdict"]
        print(
            f"{each['config']}: {verdict['reached']} of {verdict['runs']}{'' if verdict['qualified'] else ', too few'}"
        )
    if written:
        print(f"\nwritten: {', '.join(map(str, written))}")
    return 0 if len(results) == len(goals) and all(each["verdict"]["qualified"] for each in results) else 1


def _parser() -> OptionParser:
    parser = OptionParser("qualify", _DESCRIPTION)
    parser.add_argument(
        "configs",
        nargs="*",
        metavar="CONFIG",
        help="configs, as sac or conf/sac.yaml, or algorithms, as SAC (default: all that have a threshold)",
    )
    parser.add_argument("--seeds", default="10-19", help="seeds, as 10-19,25 (default: %(default)s)")
    parser.add_argument(
        "--paths", default="native", help=f"floating-point paths: {', '.join(PATHS)} (default: %(default)s)"
    )
    parser.add_argument("--jobs", help="processes at a time (default: one per core)")
    parser.add_argument("--out", default="runs/qualify", help="folder of the runs (default: %(default)s)")
    parser.add_argument(
        "--results", nargs="?", const="docs/results", metavar="DIR", help="folder of the JSON files (default: --out)"
    )
    parser.add_argument(
        "--thresholds",
        default=str(CONF / "qualification.yaml"),
        metavar="FILE",
        help="thresholds of the configs beside it",
    )
    parser.add_argument(
        "--random-episodes", default="100", help="episodes of random actions per environment (default: %(default)s)"
    )
    parser.add_argument("--reuse", action="store_true", help="keep runs of other sources of lit_mbrl")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and nothing else")
    parser.add_argument("--table", metavar="DIR", help="print the JSON files of a folder as a Markdown table instead")
    return parser


@dataclass
class _Status:
    """Which of the planned runs are finished, which are to be run (or resumed), and which are of other sources."""

    finished: list[PlannedRun] = field(default_factory=list)
    todo: list[PlannedRun] = field(default_factory=list)
    superseded: list[PlannedRun] = field(default_factory=list)

    @classmethod
    def of(cls, runs: Sequence[PlannedRun], reuse: bool) -> _Status:
        """Looks at the folders.

        Raises:
            OneLine: if one holds a run of other options.
        """
        status, commit = cls(), sources.commit()
        for run in runs:
            record = run.read_record()
            if record is None and run.folder.exists():
                raise OneLine(f"{run.folder}: expected no folder, or that of a run of qualify; choose another --out")
            if record is not None and record.get("fingerprint") != run.fingerprint:
                raise OneLine(f"{run.folder}: this run was made with another config or other options; another --out?")
            if record is not None and record.get("commits") != [commit] and not reuse:
                status.superseded.append(run)
                status.todo.append(run)
                continue
            evaluations = read_evaluations(run.folder, run.goal.threshold)
            (status.finished if evaluations is not None and evaluations.finished else status.todo).append(run)
        if status.superseded:
            count = len(status.superseded)
            print(
                f"warning: {count} {'run is' if count == 1 else 'runs are'} of other sources of lit_mbrl than "
                f"{_short(commit)} and will be put aside and repeated; --reuse keeps them",
                file=sys.stderr,
            )
        return status

    def describe(self) -> str:
        """How many runs there are, and of these are done."""
        total = len(self.finished) + len(self.todo)
        resumed = sum(run.resumable for run in self.todo)
        return f"{total} runs: {len(self.finished)} finished, {len(self.todo)} to run, {resumed} of them to resume"


class _Progress:
    """Prints a line per finished run.

    Attributes:
        done: number of finished runs, earlier ones included.
        failed: names of the runs that failed, and why.
    """

    def __init__(self, status: _Status, size: int) -> None:
        self._todo = {run.name: run for run in status.todo}
        self._size = size
        self._seconds: list[float] = []
        self._total = len(status.todo) + len(status.finished)
        self.done = len(status.finished)
        self.failed: dict[str, str] = {}

    def jobs(self) -> Iterator[Job]:
        """The processes, each made when its turn comes."""
        return (run.job() for run in self._todo.values())

    def add(self, finished: Finished, stopped: bool) -> None:
        """Notes and prints how a run ended."""
        run = self._todo[finished.job.name]
        evaluations = read_evaluations(run.folder, run.goal.threshold)
        if evaluations is not None and evaluations.finished:
            self.done += 1
            self._seconds.append(finished.seconds)
            print(f"[{self._position()}] {run.name}: {self._line(evaluations)}", flush=True)
        elif not stopped:
            self.failed[run.name] = f"exit code {finished.exit_code}, {_last_line(run.log)} (log: {run.log})"
            print(f"[{self._position()}] {run.name}: failed, log: {run.log}", flush=True)

    @staticmethod
    def _line(evaluations: Evaluations) -> str:
        verdict = "ok" if evaluations.reached else f"short of {evaluations.threshold:g}"
        return f"{evaluations.final:.1f} {verdict}, {duration(evaluations.seconds)}"

    def _position(self) -> str:
        over = self.done + len(self.failed)
        left = self._total - over
        if not self._seconds or not left:
            return f"{over}/{self._total}"
        mean = sum(self._seconds) / len(self._seconds)
        return f"{over}/{self._total}, {duration(mean * left / min(self._size, left))} left"


def _short(commit: str) -> str:
    name, plus, changed = commit.partition("+")
    return f"{name[:7]}{plus}{changed}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


class _RandomPolicy:
    """The return of random actions, measured once per environment."""

    def __init__(self, episodes: int) -> None:
        self._episodes = episodes
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, env: dict[str, Any]) -> dict[str, Any]:
        """Of a run's `data.env`, in its evaluation."""
        from lit_mbrl.envs import EnvConfig
        from lit_mbrl.qualify.random_policy import random_returns

        config = EnvConfig(**(env | {"pixels": None, "num_envs": 1, "workers": False})).in_evaluation()
        if repr(config) not in self._known:
            returns = random_returns(config, self._episodes)
            found = {"return": float(returns.mean()), "std": float(returns.std()), "episodes": len(returns)}
            self._known[repr(config)] = found
        return self._known[repr(config)]


def _results(
    runs: Sequence[PlannedRun], machine: dict[str, Any], common: dict[str, Any], measure: _RandomPolicy
) -> dict[str, Any]:
    """Everything about a config, as it is written."""
    goal: Threshold = runs[0].goal
    of_runs = {run.name: read_evaluations(run.folder, goal.threshold) for run in runs}
    first = next(run for run in runs if of_runs[run.name] is not None)
    data = yaml.safe_load((first.folder / "config.yaml").read_text())["data"]["init_args"]
    random = measure(data["env"])
    paths: dict[str, Any] = {}
    for path in dict.fromkeys(run.path.name for run in runs):
        own = [run for run in runs if run.path.name == path]
        ended = {run.seed: found for run in own if (found := of_runs[run.name]) is not None and found.finished}
        records = {run.seed: run.read_record() or {} for run in own}
        kind: FloatPath = own[0].path
        paths[path] = {
            "variables": dict(kind.variables),
            "options": list(kind.options),
            **machine[path],
            "commits": sorted({name for record in records.values() for name in record.get("commits", ())}),
            "summary": summarize(list(ended.values()), len(own), goal.threshold, random["return"], goal.floor),
            "runs": [
                {"seed": run.seed} | (ended[run.seed].as_dict() if run.seed in ended else {"failed": True})
                for run in own
            ],
        }
    summaries = [path["summary"] for path in paths.values()]
    verdict = {
        "reached": sum(summary["reached"] for summary in summaries),
        "runs": sum(summary["seeds"] for summary in summaries),
        "qualified": all(summary["qualified"] for summary in summaries),
    }
    return {
        "config": goal.config,
        "algorithm": goal.algorithm,
        "environment": data["env"]["name"],
        "total_frames": data["total_frames"],
        "eval_episodes": data["eval_episodes"],
        "threshold": goal.threshold,
        "floor": goal.floor,
        "seeds_used_for_options": list(goal.seeds_used_for_options),
        "note": goal.note,
        "random": random,
        "verdict": verdict,
        **common,
        "seeds": seed_ranges([run.seed for run in runs if run.path is runs[0].path]),
        "paths": paths,
    }
