"""The command line: `python -m lit_mbrl {fit,validate,list}`.

What a user can mend is one line on standard error and exit code 2; everything else is a bug and shows its traceback.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent / "conf"
_ALGORITHMS = Path(__file__).resolve().parent / "algorithms"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    0: finished, or gracefully stopped; 1: the run failed; 2: a mistake of the user; 130: aborted.

    Args:
        argv: the arguments; None: those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["list"]:
        print(algorithm_table())
        return 0
    try:
        # Takes seconds, which `list` has no use for.
        from lit_mbrl.application import run

        return run(argv)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # --help, --print_config
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def algorithm_table() -> str:
    """Algorithms, their papers and the configs that use them, read from the sources without importing them."""
    configs: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        if match := re.search(r"^model:\s*\n\s+class_path:\s*([\w.]+)", path.read_text(), re.MULTILINE):
            configs.setdefault(match[1].rpartition(".")[2], []).append(f"conf/{path.relative_to(CONF).as_posix()}")
    rows = [("algorithm", "paper", "config")]
    for name, paper in sorted(algorithms()):
        first, *others = configs.get(name) or ["-"]
        rows.append((name, paper, first))
        rows += [("", "", other) for other in others]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def algorithms() -> Iterator[tuple[str, str]]:
    """Name and paper of every class in `lit_mbrl/algorithms` that has a `paper`."""
    for path in sorted(_ALGORITHMS.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                for statement in node.body:
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "paper":
                        yield node.name, ast.literal_eval(statement.value)
