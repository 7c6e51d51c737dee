"""The results of a qualification as JSON, as a table for the terminal and as a Markdown table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lit_mbrl.app.commands.qualify.results import verdict_of
from lit_mbrl.app.experiment.sources import short
from lit_mbrl.reports.table import numbers, table
from lit_mbrl.utils.errors import OptionError, UsageError

# What two results of a config have in common if they differ in their floating-point paths and machines alone.
_SAME = ("config", "environment", "total_frames", "eval_episodes", "threshold", "floor")
_HEADER = ("config", "path", "reached", "IQM", "95 % interval", "mean", "95 % interval", "worst", "fell back", "time")


def duration(seconds: float) -> str:
    """`2 min 31 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def results_file(folder: Path, config: str) -> Path:
    """Returns the path of a config's results."""
    return folder / f"{config.replace('/', '-')}.json"


def write_results(folder: Path, results: dict[str, Any]) -> Path:
    """Writes the results of a config with seven digits; numbers that JSON does not have become null.

    Other floating-point paths that the file has already of the same configuration stay in it: each says its machine.

    Raises:
        OptionError: if the folder cannot be written to.
    """
    path = results_file(folder, results["config"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(_dump(_with_other_paths(path, _plain(results))) + "\n")
    except OSError as error:
        raise OptionError("results", folder, f"a folder that can be written to ({error.strerror})") from error
    return path


def _with_other_paths(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        return results
    if not (isinstance(before, dict) and {"paths", "commands"} <= before.keys()):
        return results
    if any(before.get(key) != results.get(key) for key in _SAME):
        return results
    paths, commands = (before[key] | results[key] for key in ("paths", "commands"))
    return results | {"paths": paths, "commands": commands, "verdict": verdict_of(paths)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _dump(value: Any, indent: str = "") -> str:
    """JSON with a line per entry, but lists of plain values in one."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {_dump(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return "[\n" + ",\n".join(f"{inner}{_dump(each, inner)}" for each in value) + f"\n{indent}]"
    return json.dumps(value)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results of all configs in a folder, sorted by name.

    Raises:
        UsageError: if there are none, or a file holds something else.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            if not {"config", "threshold", "paths"} <= set(content):
                raise ValueError
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path}: expected the results of qualify") from error
        found.append(content)
    if not found:
        raise UsageError(f"--table={folder}: expected a folder with the results of qualify, but it has no .json")
    return found


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per config and path."""
    rows = [_HEADER]
    for each in results:
        rows += [(each["config"], name, *_cells(path["summary"])) for name, path in each["paths"].items()]
    return table(rows, right=range(2, len(_HEADER)))


def markdown(results: Iterable[dict[str, Any]]) -> str:
    """The same as a Markdown table, with environment, threshold, seeds, machine and each seed's final return."""
    header = ("config", "environment, env steps", "threshold (random)", "path", "reached", "IQM", "mean", "worst")
    header += ("fell back", "time", "processor, commit", "seeds", "per seed")
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for each in results:
        threshold, (random,) = f"{each['threshold']:g}", _whole(each["random"]["return"])
        task = f"{each['environment']}, {each['total_frames']:,}".replace(",", " ").replace("  ", ", ")
        for name, path in each["paths"].items():
            reached, *cells = _cells(path["summary"], _whole)
            statistics = [f"{cells[0]} {cells[1]}", f"{cells[2]} {cells[3]}", *cells[4:]]
            seeds = seed_ranges([run["seed"] for run in path["runs"]])
            row = [f"`{each['config']}`", task, f"{threshold} ({random})", f"`{name}`", reached, *statistics]
            lines.append("| " + " | ".join([*row, _machine(path), seeds, _finals(path["runs"])]) + " |")
    return "\n".join(lines)


def by_task(results: Iterable[dict[str, Any]]) -> str:
    """What qualified configs need on each environment, as a Markdown table: fewest environment steps first.

    Steps to the threshold are the median over seeds of the first evaluation that reaches it, so they are multiples of
    the steps between evaluations; time is the whole run's.
    """
    rows = []
    for each in results:
        path = each["paths"].get("native")
        if path is None or not path["summary"]["qualified"]:
            continue
        steps = median(run["first_reached_at"] for run in path["runs"] if run.get("first_reached_at") is not None)
        (mean,) = _whole(path["summary"]["mean"])
        whole = f"{steps:,.0f} of {each['total_frames']:,}".replace(",", " ")
        task = f"{each['environment']}, {each['threshold']:g}"
        time = duration(path["summary"]["median_seconds"])
        rows.append((task, steps, f"| {task} | `{each['config']}` | {whole} | {mean} | {time} |"))
    header = "| environment, threshold | config | env steps to it, of | mean at the end | time of a run |"
    return "\n".join([header, "|---" * 5 + "|", *(row for *_, row in sorted(rows))])


def _whole(*values: float) -> list[str]:
    """As `numbers`, but hundreds without decimals."""
    return [f"{value:.0f}" for value in values] if max(map(abs, values)) >= 100 else numbers(*values)


def _machine(path: dict[str, Any]) -> str:
    """`AMD EPYC (AVX512), 7b24ed1`."""
    name = path["processor"]["name"].replace("(R)", "").replace("(TM)", "")
    return f"{name} ({path['cpu_capability']}), {', '.join(map(short, path['commits']))}"


def _finals(runs: Sequence[dict[str, Any]]) -> str:
    finals = [run["final"] for run in runs if "final" in run]
    failed = [f"{len(runs) - len(finals)} failed"] if len(finals) < len(runs) else []
    return ", ".join([*(_whole(*finals) if finals else ()), *failed])


def verdict(results: dict[str, Any]) -> str:
    """`sac: 19 of 20`, and what is wrong with it."""
    found = results["verdict"]
    line = f"{results['config']}: {found['reached']} of {found['runs']}"
    if found["qualified"]:
        return line
    short = [name for name, path in results["paths"].items() if not path["summary"]["qualified"]]
    below = sum(path["summary"]["below_floor"] for path in results["paths"].values())
    floor = f", {below} below the floor of {results['floor']:g}" if below else ""
    return f"{line}{floor}: does not qualify on {', '.join(short)}"


def _cells(summary: dict[str, Any], form: Callable[..., list[str]] = numbers) -> tuple[str, ...]:
    reached = f"{summary['reached']} of {summary['seeds']}"
    if "iqm" not in summary:
        return (reached, *["-"] * 5, str(summary["deep_fall_backs"]), "-")
    iqm, mean, worst, *bounds = form(
        *(summary[name] for name in ("iqm", "mean", "worst")),
        *(summary["iqm_interval_95"] or ()),
        *(summary["mean_interval_95"] or ()),
    )
    intervals = [f"[{', '.join(bounds[i : i + 2])}]" for i in (0, 2)] if bounds else ["-", "-"]
    fell_back = str(summary["deep_fall_backs"])
    return reached, iqm, intervals[0], mean, intervals[1], worst, fell_back, duration(summary["median_seconds"])


def seed_ranges(seeds: Sequence[int]) -> str:
    """`[10, 11, 12, 25]` as `10-12,25`, as `--seeds` takes it."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
