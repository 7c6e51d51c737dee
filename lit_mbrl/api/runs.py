"""Runs from Python programs: what the command line does, with results in the place of printed lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from lit_mbrl.api.agent import TrainedAgent, checkpoint_of, load
from lit_mbrl.app.application import Application
from lit_mbrl.app.commands.evaluate import Evaluation, validate_command
from lit_mbrl.app.output import silence_libraries
from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.make import make_configured


@dataclass(frozen=True)
class Run:
    """A run of `fit`.

    Attributes:
        folder: its run folder.
        metrics: of its last evaluation, `eval/return` and others.
    """

    folder: Path
    metrics: Mapping[str, float]

    def agent(self, device: Any = "cpu") -> TrainedAgent:
        """Loads the agent of its best checkpoint."""
        return load(self.folder, device, trust=True)  # its code has just been run


def fit(config: str | Path | None = None, **overrides: Any) -> Run:
    """Trains as `python -m lit_mbrl fit --config=<config>` does.

    Args:
        config: a config file; None: that of `ckpt_path`'s run.
        **overrides: options, by their names on the command line: `seed_everything=1`, `model={"horizon": 3}` or
            `**{"model.horizon": 3}`. None is null.

    Raises:
        OptionError or UsageError: about a mistake, as the command line puts it.
        TrainingError: if the run fails.
    """
    words = ["fit", *([] if config is None else [f"--config={config}"])]
    words += [f"--{name}={text}" for name, text in _words(overrides)]
    with silence_libraries(), ExitStack() as until_the_end:
        application = Application(words, until_the_end)
    metrics = {name: float(value) for name, value in application.trainer.callback_metrics.items()}
    return Run(application.run_folder, metrics)


def evaluate(path: str | Path, episodes: int = 10, *, trust: bool = False, **overrides: Any) -> dict[str, Any]:
    """Evaluates as `python -m lit_mbrl evaluate --json` does; returns its entries.

    Args:
        path: a checkpoint or a run folder.
        episodes: how many.
        trust: whether the checkpoint may name modules that are neither ours nor installed.
        **overrides: as for `fit`.

    Raises:
        OptionError: about the checkpoint or an option.
    """
    others = [f"--{name}={text}" for name, text in _words(overrides)] + ["--trust"] * trust
    with silence_libraries():
        return Evaluation(validate_command(str(checkpoint_of(Path(path))), episodes, others)).as_dict()


def make_env(name: str, **options: Any) -> gym.Env:
    """Makes an environment as agents see it: actions in [-1, 1], observations float32 vectors or uint8 images.

    Args:
        name: see `envs.EnvConfig`.
        **options: its others, as `action_repeat=2`, `pixels=PixelConfig(size=64)`.

    Raises:
        OptionError: if there is no such environment.
    """
    return make_configured(EnvConfig(name, **options))


def _words(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Path):
            yield f"{prefix}{name}", str(value)
        elif isinstance(value, Mapping) and value:
            yield from _words(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """Returns what an option of the command line may be in the place of a path, or of a number or array of numpy's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
