"""Tables: on the terminal, as JSON and between two marks of a Markdown file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.work import ROOT

BEGIN, END = "<!-- measured: python -m benchmarks -->", "<!-- end of what was measured -->"
_PACKAGES = (
    "torch",
    "lightning",
    "torchrl",
    "tensordict",
    "gymnasium",
    "mujoco",
    "numpy",
    "stable-baselines3",
)


@dataclass
class Table:
    """A title, a header, rows of text, remarks, and the numbers behind them.

    Attributes:
        raw: what was measured, as JSON can hold it.
        origin: when, where and how.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table with its title, remarks and origin."""
        lines = [f"### {self.title}", "", *(f"{note}" for note in self.notes), *([""] if self.notes else [])]
        lines += [_row(self.header), _row(["---"] * len(self.header)), *map(_row, self.rows), ""]
        if self.origin:
            lines += ["; ".join(self.origin[key] for key in ("command", "tree", "date", "load")) + ".", ""]
        return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def origin(command: str, threads: int, elsewhere: Mapping[str, str] | None = None) -> dict[str, str]:
    """Identifies a figure.

    Args:
        command: that has measured it.
        threads: of every contender.
        elsewhere: versions of packages in other environments.
    """
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions |= dict(elsewhere or {})
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "command": f"`{command}`",
        "tree": f"commit {_commit()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": f"{threads} of {os.cpu_count()} cores, load at the end {load}",
        "machine": _processor(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write(tables: list[Table], out: Path) -> None:
    """Puts the tables into `<out>.json` and `<out>.md`, in the place of those of the same name.

    A Markdown file that has the marks keeps everything outside of them.
    """
    store, text = out.with_suffix(".json"), out.with_suffix(".md")
    old = json.loads(store.read_text()) if store.is_file() else {}
    merged = old | {table.name: asdict(table) for table in tables}
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(json.dumps(merged, indent=1) + "\n")
    measured = [Table(**content) for content in merged.values()]
    machines = dict.fromkeys(f"{table.origin['machine']}; {table.origin['versions']}." for table in measured)
    body = "\n".join([*machines, "", *(table.markdown() for table in measured)])
    before, after = "", ""
    if text.is_file() and BEGIN in (whole := text.read_text()):
        before, _, rest = whole.partition(BEGIN)
        after = rest.partition(END)[2]
    text.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after or chr(10)}")
