"""The results of a config: its runs on every path, with all that they have to be read with."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml

from lit_mbrl.app.commands.qualify.plan import PlannedRun
from lit_mbrl.app.commands.qualify.report import seed_ranges
from lit_mbrl.app.commands.qualify.results import Evaluations, read_evaluations, summarize, verdict_of
from lit_mbrl.app.experiment import sources
from lit_mbrl.app.experiment.paths import PATHS, FloatPath


class Collector:
    """Collects results, and measures the return of random actions once per environment.

    Args:
        paths: the floating-point paths of the runs, which are looked at, and warned of if they are none here.
        episodes: of random actions.
        options: of the command, with which its results can be repeated.
    """

    def __init__(self, paths: Sequence[FloatPath], episodes: int, options: Sequence[str]) -> None:
        self._episodes, self._options = episodes, list(options)
        self._known: dict[str, dict[str, Any]] = {}
        self._probes = {path.name: sources.probe(path) for path in paths}
        if any(path.variables for path in paths):
            native = self._probes.get("native") or sources.probe(PATHS["native"])
            for path in paths:
                if path.variables and self._probes[path.name]["rounding"] == native["rounding"]:
                    print(f"warning: on this machine {path.name} rounds as native does", file=sys.stderr)

    def results(self, runs: Sequence[PlannedRun]) -> dict[str, Any] | None:
        """The results of a config's runs, None if none is finished."""
        goal = runs[0].goal
        finished: dict[str, Evaluations] = {}
        for run in runs:
            evaluations = read_evaluations(run.folder, goal.threshold)
            if evaluations is not None and evaluations.finished:
                finished[run.name] = evaluations
        if not finished:
            return None
        example = next(run for run in runs if run.name in finished)
        data = yaml.safe_load((example.folder / "config.yaml").read_text())["data"]["init_args"]
        random = self._random(data["env"])
        paths = {}
        for path in dict.fromkeys(run.path.name for run in runs):
            own = [run for run in runs if run.path.name == path]
            paths[path] = self._path(own, finished, random["return"])
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
            "seeds": seed_ranges([run.seed for run in runs if run.path is runs[0].path]),
            "random": random,
            "verdict": verdict_of(paths),
            "commands": dict.fromkeys(paths, self._command(goal.config)),
            "paths": paths,
        }

    def _command(self, config: str) -> str:
        return shlex.join(["python", "-m", "lit_mbrl", "qualify", config, *self._options])

    def _path(self, runs: Sequence[PlannedRun], finished: dict[str, Evaluations], random: float) -> dict[str, Any]:
        goal, path = runs[0].goal, runs[0].path
        commits = sorted({name for run in runs for name in (run.read_record() or {}).get("commits", ())})
        if len(commits) > 1:
            print(
                f"warning: the runs of {goal.config} on {path.name} are of several commits: "
                f"{', '.join(map(sources.short, commits))}",
                file=sys.stderr,
            )
        ended = [finished[run.name] for run in runs if run.name in finished]
        return {
            "variables": dict(path.variables),
            "options": list(path.options),
            **self._probes[path.name],
            "commits": commits,
            "date": time.strftime("%Y-%m-%d"),
            "versions": sources.versions(),
            "processor": sources.processor(),
            "summary": summarize(ended, len(runs), goal.threshold, random, goal.floor),
            "runs": [
                {"seed": run.seed} | (finished[run.name].as_dict() if run.name in finished else {"failed": True})
                for run in runs
            ],
        }

    def _random(self, env: dict[str, Any]) -> dict[str, Any]:
        """Of a run's `data.env`, in its evaluation."""
        from lit_mbrl.app.commands.qualify.random_policy import random_returns
        from lit_mbrl.envs import EnvConfig  # simulators, which --help has no use for

        config = EnvConfig(**(env | {"pixels": None, "num_envs": 1, "workers": False})).eval_config()
        key = repr(config)
        if key not in self._known:
            returns = random_returns(config, self._episodes)
            self._known[key] = {
                "return": float(returns.mean()),
                "std": float(returns.std()),
                "episodes": len(returns),
            }
        return self._known[key]
