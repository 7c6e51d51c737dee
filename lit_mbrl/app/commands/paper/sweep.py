"""The runs of an artefact as a sweep of Weights & Biases, whose agents are started by hand wherever they are wanted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from lit_mbrl.papers.artefact import Artefact, Budget


def write_sweep(artefact: Artefact, budget: Budget, name: str, out: Path, overrides: Sequence[str], finish: str) -> str:
    """Writes a grid of all tasks, variants and seeds, a run per trial.

    A trial is this command with one run. Its folder is the one that the whole command makes, so that this one goes on
    from what agents have done and reports it, if they share its folder.

    Args:
        artefact: whose runs are wanted.
        budget: its runs.
        name: the budget's.
        out: folder of runs and reports.
        overrides: further options of every run.
        finish: the command that reports once the runs are done.

    Returns:
        What is to be done next, for the terminal.
    """
    trial = ["${env}", "python", "-m", "lit_mbrl", "paper", artefact.name, f"--budget={name}", f"--out={out}"]
    trial += ["--jobs=1", "--no-timing", "--no-report", "${args}"]
    sweep = {
        "program": "lit_mbrl/__main__.py",
        "project": "lit_mbrl",
        "name": f"{artefact.name} {name}",
        "method": "grid",
        "metric": {"name": artefact.metric, "goal": "minimize" if artefact.lower_is_better else "maximize"},
        "parameters": {
            # Seeds first: a grid takes the last parameter fastest, so the first results are about every cell.
            "seeds": {"values": list(budget.seeds)},
            "tasks": {"values": list(budget.tasks)},
            "variants": {"values": list(budget.variants)},
        },
        "command": [*trial, *(["--", *overrides] if overrides else [])],
    }
    path = out / "sweeps" / f"{artefact.name.replace('/', '-')}-{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(yaml.safe_dump(sweep, sort_keys=False))
    os.replace(temporary, path)
    return (
        f"written: {path}\n"
        f"wandb sweep {path}                        # prints the command of an agent\n"
        "wandb agent <entity>/lit_mbrl/<sweep id>   # here and on other machines that share this folder\n"
        f"{finish}   # then: the report"
    )
