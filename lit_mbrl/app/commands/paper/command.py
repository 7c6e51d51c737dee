"""The command: its options, the plan, the runs that are missing, and the report."""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_mbrl.app.commands.options import OptionParser, positive_integer
from lit_mbrl.app.commands.paper.cost import UNKNOWN, Cost, disk_of, kinds, measure
from lit_mbrl.app.commands.paper.plan import PaperRun, choose_budget, cut, plan
from lit_mbrl.app.commands.paper.progress import Progress, evaluations_of, is_finished
from lit_mbrl.app.commands.paper.report import write_report
from lit_mbrl.app.commands.paper.results import left_out
from lit_mbrl.app.commands.paper.sweep import write_sweep
from lit_mbrl.app.commands.qualify.report import duration
from lit_mbrl.app.experiment import sources
from lit_mbrl.app.experiment.launchers import LAUNCHERS, make_launcher
from lit_mbrl.app.experiment.run import check_folder, check_overrides, read_seeds
from lit_mbrl.papers.artefact import BUDGETS, Artefact, Budget
from lit_mbrl.papers.index import ARTEFACTS
from lit_mbrl.reports.table import table
from lit_mbrl.utils.errors import OptionError, UsageError, did_you_mean
from lit_mbrl.utils.pool import Pool

_OUT = "runs/paper"
_DESCRIPTION = """Runs what a table or a figure of a paper needs, and writes a report with the paper's own numbers
beside ours: index.html, tables, a figure. Without a name it lists them. Each run is a process of its own. The same
command again goes on where it was interrupted; finished runs are not repeated, other options make other runs. Several
commands share the runs among them. What follows -- is given to every run. Exit code 0: all runs are finished; 1: some
failed, or another command is making them; 2: a mistake in the command line; 130, 143: interrupted."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    try:
        return paper(argv)
    except (OptionError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def paper(argv: Sequence[str]) -> int:
    """Reads the options, plans, runs what is missing, reports, and returns the exit code.

    Raises:
        OptionError: for a wrong option.
        UsageError: for an artefact that there is not, or not yet.
    """
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    options, overrides = _parser().parse_intermixed_args(words[:end]), words[end + 1 :]
    if options.artefact is None:
        print(_list())
        return 0
    if options.artefact not in ARTEFACTS:
        hint = did_you_mean(options.artefact, ARTEFACTS)
        raise UsageError(f"{options.artefact}: expected one of {', '.join(ARTEFACTS)}{hint}")
    artefact = ARTEFACTS[options.artefact]
    seeds = None if options.seeds is None else read_seeds(options.seeds)
    budget = cut(choose_budget(artefact, options.budget), options.tasks, options.variants, seeds)
    out = Path(options.out)
    if options.launcher == "wandb":
        check_overrides("paper", overrides)
        finish = _command(options, overrides) if options.out == _OUT else f"{_command(options, overrides)} --out={out}"
        print(write_sweep(artefact, budget, options.budget, out, overrides, finish))
        return 0
    launcher = None if options.dry_run else make_launcher(options.launcher, options.launcher_options, out / "launcher")
    here = options.launcher == "local"
    most = sources.cores() if here else len(list(budget.cells())) * len(budget.seeds)  # a cluster has its own queue
    size = most if options.jobs is None else positive_integer("jobs", options.jobs)
    runs = plan(artefact, budget, out, overrides)
    if not options.dry_run:
        check_folder(out)
    todo = _unfinished(runs)
    costs = {} if options.no_timing or not here or options.budget == "smoke" else _costs(runs, todo)
    print(_plan_text(artefact, options.budget, budget.note, runs, todo, costs, size, out), flush=True)
    if options.dry_run:
        return 0
    seconds = {kind: cost.seconds for kind, cost in costs.items()}
    with Progress(todo, len(runs) - len(todo), size, seconds) as progress, Pool(size, launcher) as pool:
        for finished in pool.run(progress.jobs()):
            progress.add(finished, pool.stopped is not None)
    if pool.stopped is not None:
        done = f"{progress.done} of {len(runs)} runs are finished"
        print(f"Stopped: {done}. The same command goes on.", file=sys.stderr)
        return 128 + pool.stopped
    if options.no_report:
        for name, why in progress.failed.items():
            print(f"failed: {name}: {why}")
    else:
        _report(artefact, options, budget, runs, progress.failed, overrides)
    return 1 if progress.failed or progress.elsewhere else 0


def _unfinished(runs: Sequence[PaperRun]) -> list[PaperRun]:
    """The runs that are to be made, or to be gone on with; warns of those of earlier sources that are kept."""
    todo, others, commit = [], 0, sources.commit()
    for run in runs:
        record = run.read_record()
        if record is None and run.folder.exists():
            raise UsageError(f"{run.folder}: expected the folder of a run of paper, or none; choose another --out")
        if record is None or not is_finished(run):
            todo.append(run)
        others += record is not None and record["commits"] != [commit]
    if others:
        print(
            f"warning: {others} of the runs are of other sources than the present ones ({sources.short(commit)}); they "
            "are kept, and the report names the commits; remove their folders to repeat them",
            file=sys.stderr,
        )
    return todo


def _costs(runs: Sequence[PaperRun], todo: Sequence[PaperRun]) -> dict[tuple[str, str], Cost]:
    """What a run of each kind that is to be run costs: as a finished one, or estimated from its first steps."""
    costs, unfinished = {}, {id(run) for run in todo}
    for kind, own in kinds(runs).items():
        finished = [run for run in own if id(run) not in unfinished]
        if len(finished) == len(own):
            continue
        known = [(found.seconds, disk_of(run)) for run in finished if (found := evaluations_of(run)) is not None]
        if known:
            costs[kind] = Cost(*(sum(values) / len(known) for values in zip(*known, strict=True)))
        else:
            print(f"timing the first steps of {kind[1]} on {kind[0]}", file=sys.stderr, flush=True)
            costs[kind] = measure(own[0])
    return costs


def _plan_text(
    artefact: Artefact,
    budget: str,
    note: str,
    runs: Sequence[PaperRun],
    todo: Sequence[PaperRun],
    costs: dict[tuple[str, str], Cost],
    size: int,
    out: Path,
) -> str:
    rows = [("task", "variant", "runs", "finished", "a run takes")]
    for kind, own in kinds(runs).items():
        left = sum(run in todo for run in own)
        seconds = costs.get(kind, UNKNOWN).seconds
        time = "-" if left == 0 else "unknown" if math.isnan(seconds) else f"about {duration(seconds)}"
        rows.append((*kind, str(len(own)), str(len(own) - left), time))
    lines = [f"{artefact.name}, budget {budget}: {artefact.title} ({artefact.source})"]
    lines += [f"differs from the paper: {note}"] if note else []
    lines += ["", table(rows, right=(2, 3, 4)), ""]
    whole = [costs.get((run.cell.task, run.cell.variant), UNKNOWN) for run in todo]
    seconds, disk = sum(cost.seconds for cost in whole), sum(cost.disk for cost in whole)
    if todo:
        time = "unknown" if math.isnan(seconds) else f"about {duration(seconds / min(size, len(todo)))}"
        at_a_time = min(size, len(todo))
        lines.append(f"{len(todo)} runs to make, {at_a_time} at a time: {time} on this machine")
    else:
        lines.append("all runs are finished")
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    needed = "" if math.isnan(disk) or not todo else f"disk: about {disk / 1e9:.2g} GB more; "
    lines.append(f"{needed}free disk space there: {shutil.disk_usage(place).free / 1e9:.1f} GB")
    return "\n".join(lines)


def _report(
    artefact: Artefact,
    options: argparse.Namespace,
    budget: Budget,
    runs: Sequence[PaperRun],
    failed: dict[str, str],
    overrides: Sequence[str],
) -> None:
    folder = Path(options.out) / "report" / artefact.name / options.budget
    rows, written = write_report(artefact, budget, options.budget, runs, folder, _command(options, overrides))
    if written:
        print(f"\n{table(rows, right=range(2, len(rows[0])))}\n")
    for name in left_out(artefact, runs):
        print(f"left out: {name} has no {artefact.metric}", file=sys.stderr)
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    if written:
        print(f"written: {written[0]}, and beside it {', '.join(path.name for path in written[1:])}")


def _command(options: argparse.Namespace, overrides: Sequence[str]) -> str:
    words = ["python", "-m", "lit_mbrl", "paper", options.artefact, f"--budget={options.budget}"]
    words += [f"--{name}={value}" for name in ("tasks", "variants", "seeds") if (value := getattr(options, name))]
    return shlex.join([*words, *(["--", *overrides] if overrides else [])])


def _list() -> str:
    rows = [("artefact", "budgets", "what it shows")]
    for artefact in ARTEFACTS.values():
        budgets = ", ".join(name for name in BUDGETS if name in artefact.budgets) or "not yet"
        rows.append((artefact.name, budgets, artefact.title if artefact.budgets else artefact.missing))
    return table(rows)


def _parser() -> OptionParser:
    parser = OptionParser("paper", _DESCRIPTION)
    parser.add_argument("artefact", nargs="?", metavar="ARTEFACT", help="a table or a figure, as sac_svg/table_2")
    parser.add_argument(
        "--budget",
        default="laptop",
        help="smoke: a minute; laptop: a night on two cores; paper: its own sizes and seeds (default: %(default)s)",
    )
    parser.add_argument("--tasks", help="some of its tasks, with commas in between (default: all)")
    parser.add_argument("--variants", help="some of its variants (default: all)")
    parser.add_argument("--seeds", help="other seeds than the budget's, as 10-19,25")
    parser.add_argument("--jobs", help="runs at a time (default: one per core)")
    parser.add_argument(
        "--launcher",
        default="local",
        help=f"where runs go on: {', '.join(LAUNCHERS)}; a cluster gets all of them at once, or --jobs; wandb: write a "
        "sweep, for agents (default: %(default)s)",
    )
    parser.add_argument(
        "--launcher-options",
        default="",
        metavar="KEY=VALUE,...",
        help="of submitit's executor, as timeout_min=600,slurm_partition=gpu; of Ray address, num_cpus, num_gpus",
    )
    parser.add_argument("--out", default=_OUT, help="folder of runs and reports (default: %(default)s)")
    parser.add_argument("--no-timing", action="store_true", help="do not time the first steps of each kind of run")
    parser.add_argument("--no-report", action="store_true", help="make the runs alone")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, and do nothing")
    return parser
