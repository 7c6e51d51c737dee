"""The command: its options, the runs that are missing, and the verdict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lit_mbrl.app import CONF
from lit_mbrl.app.commands.options import OptionParser, positive_integer
from lit_mbrl.app.commands.qualify.collect import Collector
from lit_mbrl.app.commands.qualify.plan import PlannedRun, plan
from lit_mbrl.app.commands.qualify.progress import Progress
from lit_mbrl.app.commands.qualify.report import as_table, by_task, markdown, read_results, verdict, write_results
from lit_mbrl.app.commands.qualify.status import Status
from lit_mbrl.app.commands.qualify.thresholds import choose, read_thresholds
from lit_mbrl.app.experiment import sources
from lit_mbrl.app.experiment.paths import PATHS, read_paths
from lit_mbrl.app.experiment.run import locked, read_seeds
from lit_mbrl.utils.errors import OptionError, UsageError
from lit_mbrl.utils.pool import Pool

_DESCRIPTION = """Trains configs over many seeds, and on several floating-point paths, and says whether they dependably
learn: whether at least nine of ten seeds end at the config's threshold (conf/qualification.yaml) or above. Each run is
a process of its own. The same command again goes on where it was interrupted. What follows -- is given to every run,
as -- --data.total_frames=400. Exit code 0: every config learns on every path; 1: one does not; 2: a mistake in the
command line; 130, 143: interrupted."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    try:
        return qualify(argv)
    except (OptionError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def qualify(argv: Sequence[str]) -> int:
    """Reads the options, runs what is missing, reports, and returns the exit code.

    Raises:
        OptionError: for a wrong option.
        UsageError: for a wrong config, seed or folder.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, overrides = _parser().parse_intermixed_args(words[:end]), words[end + 1 :]
    if options.table is not None:
        print((by_task if options.by_task else markdown)(read_results(Path(options.table))))
        return 0
    goals = choose(read_thresholds(Path(options.thresholds)), options.configs)
    paths, seeds = read_paths(options.paths), read_seeds(options.seeds)
    size = sources.cores() if options.jobs is None else positive_integer("jobs", options.jobs)
    episodes = positive_integer("random-episodes", options.random_episodes)
    out = Path(options.out)
    runs = plan(goals, paths, seeds, out, overrides)
    with ExitStack() as until_the_end:
        if not options.dry_run:
            for folder in dict.fromkeys(run.folder.parent for run in runs):
                until_the_end.enter_context(locked(folder, "qualify"))
        status = Status.of(runs, options.reuse)
        if options.dry_run:
            print(status.describe())
            print("\n".join(status.command_lines()))
            return 0
        collector = Collector(paths, episodes, _repeating(options, overrides))
        for old in status.superseded:
            old.put_aside(out)
        print(status.describe(), flush=True)
        with Pool(size) as pool:
            progress = Progress(status, size)
            for finished in pool.run(progress.jobs()):
                progress.add(finished, pool.stopped is not None)
        if pool.stopped is not None:
            print(
                f"Stopped: {progress.done} of {len(runs)} runs are finished. The same command goes on.", file=sys.stderr
            )
            return 128 + pool.stopped
        return _report(runs, collector, progress.failed, Path(options.results) if options.results else out)


def _report(runs: Sequence[PlannedRun], collector: Collector, failed: dict[str, str], folder: Path) -> int:
    """Writes and prints the results, and returns the exit code."""
    goals = list(dict.fromkeys(run.goal for run in runs))
    found = [collector.results([run for run in runs if run.goal == goal]) for goal in goals]
    results = [each for each in found if each is not None]
    written = [write_results(folder, each) for each in results]
    if results:
        print(f"\n{as_table(results)}\n")
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    for goal, each in zip(goals, found, strict=True):
        print(
            verdict(each)
            if each
            else f"{goal.config}: 0 of {sum(run.goal == goal for run in runs)}, no run is finished"
        )
    if written:
        print(f"\nwritten: {', '.join(map(str, written))}")
    return 0 if all(each is not None and each["verdict"]["qualified"] for each in found) else 1


def _repeating(options: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The options with which the command, after the name of a config, gives the same results."""
    words = [f"--seeds={options.seeds}", f"--paths={options.paths}"]
    if options.thresholds != _parser().get_default("thresholds"):
        words.append(f"--thresholds={options.thresholds}")
    return [*words, *(["--", *overrides] if overrides else [])]


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
        "--results",
        nargs="?",
        const="docs/results",
        metavar="DIR",
        help="folder of the JSON files, one per config (default: that of --out; without a value: %(const)s)",
    )
    parser.add_argument(
        "--thresholds",
        default=str(CONF / "qualification.yaml"),
        metavar="FILE",
        help="thresholds of configs in the same folder (default: conf/qualification.yaml)",
    )
    parser.add_argument(
        "--random-episodes", default="100", help="episodes of random actions per environment (default: %(default)s)"
    )
    parser.add_argument("--reuse", action="store_true", help="keep runs of other sources of lit_mbrl")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and do nothing")
    parser.add_argument("--table", metavar="DIR", help="print the JSON files of a folder as a Markdown table instead")
    parser.add_argument("--by-task", action="store_true", help="with --table: what qualified configs need, by task")
    return parser
