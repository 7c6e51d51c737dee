"""The command line: `python -m lit_mbrl {fit,validate,evaluate,video,plot,model_error,qualify,paper,list}`.

What a user can mend is one line on standard error and exit code 2; everything else is a bug and shows its traceback.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lit_mbrl.app import CONF
from lit_mbrl.app.defaults import read_config
from lit_mbrl.app.overview import COMMANDS, HELP, OVERVIEW, misspelt
from lit_mbrl.reports.table import table
from lit_mbrl.utils.errors import did_you_mean, printable

# Commands that are not Lightning's have a module with a `run` of their own.
_COMMANDS = {
    "evaluate": "lit_mbrl.app.commands.evaluate",
    "video": "lit_mbrl.app.commands.video",
    "plot": "lit_mbrl.app.commands.plot",
    "model_error": "lit_mbrl.app.commands.model_error",
    "qualify": "lit_mbrl.app.commands.qualify.command",
    "paper": "lit_mbrl.app.commands.paper.command",
}
_ALGORITHMS = Path(__file__).resolve().parents[1] / "algorithms"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code.

    0: finished, or gracefully stopped; 1: the run failed; 2: a mistake of the user; 130: aborted.

    Args:
        argv: the arguments; None: those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["list"]:
            if argv[1:] and argv[1:] not in (["--help"], ["-h"]):
                print(f"error: {printable(argv[1])}: expected nothing after list", file=sys.stderr)
                return 2
            print(algorithm_table(), flush=True)
            return 0
        # Imports take seconds, which neither these have a use for nor `list`; `plot` has none for torch.
        if argv[:1] and argv[0] in HELP:
            print(OVERVIEW, flush=True)
            return 0
        if (word := misspelt(argv)) is not None:
            expected = f"expected one of {', '.join(COMMANDS)}{did_you_mean(word, COMMANDS)}"
            print(f"error: {printable(word) or 'no command'}: {expected}", file=sys.stderr)
            return 2
        own = _COMMANDS.get(argv[0]) if argv else None
        run = _load(own or "lit_mbrl.app.application").run
        return run(argv[1:] if own else argv)
    except _NoGraphics as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # --help, --print_config
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _NoGraphics(Exception):
    """MuJoCo, which TorchRL imports, cannot be imported with this `MUJOCO_GL`."""


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, AttributeError) as error:
        backend = os.environ.get("MUJOCO_GL")
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if backend and any(f"{os.sep}mujoco{os.sep}" in file for file in files):
            expected = "a graphics library that is installed (unset it where nothing is to be drawn)"
            raise _NoGraphics(f"MUJOCO_GL={backend}: expected {expected}") from error
        raise


def algorithm_table() -> str:
    """Algorithms, their papers and the configs that use them, read from the sources without importing them."""
    configs: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        model = read_config(path).get("model")
        if isinstance(model, dict) and "class_path" in model and path.stem != "common":
            name = model["class_path"].rpartition(".")[2]
            configs.setdefault(name, []).append(f"conf/{path.relative_to(CONF).as_posix()}")
    rows = [("algorithm", "paper", "config")]
    for name, paper in sorted(algorithms()):
        first, *others = configs.get(name) or ["-"]
        rows.append((name, paper, first))
        rows += [("", "", other) for other in others]
    return table(rows)


def algorithms() -> Iterator[tuple[str, str]]:
    """Name and paper of every class in `lit_mbrl/algorithms` that has a `paper`."""
    for path in sorted(_ALGORITHMS.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                for statement in node.body:
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "paper":
                        yield node.name, ast.literal_eval(statement.value)
