"""`python -m lit_mbrl evaluate`: episodes of a checkpoint's policy, as a table or as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDictBase

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.application import Application
from lit_mbrl.app.arguments import option_values
from lit_mbrl.app.commands.options import OptionParser, positive_integer
from lit_mbrl.app.guard import run_command
from lit_mbrl.app.output import print_rank_zero
from lit_mbrl.reports.statistics import estimate, interval
from lit_mbrl.reports.table import numbers, table
from lit_mbrl.utils.errors import UsageError

_DESCRIPTION = """Evaluates a checkpoint with the config of its run: undiscounted returns and lengths of episodes,
deterministic ones unless data.eval_actions is sample, their mean, standard deviation (over these episodes, divided by
their number), interquartile mean and the 95 % bootstrap interval of the mean. The start states follow from the seed, so
the same command repeats itself; another --seed_everything has others. Every option of `validate` may be given, too;
--trust lets a config that comes with the checkpoint name modules that are not installed."""


def run(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code; a user's mistake is printed as one line and gives 2."""
    return run_command(_evaluate, argv)


def _evaluate(argv: Sequence[str]) -> None:
    parser = OptionParser("evaluate", _DESCRIPTION)
    parser.add_argument("--ckpt_path", required=True, help="the checkpoint to evaluate")
    parser.add_argument("--episodes", default="10", help="number of episodes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options, others = parser.parse_known_args(argv)
    episodes = positive_integer("episodes", options.episodes)
    command = validate_command(options.ckpt_path, episodes, others)
    if not options.json:
        print_rank_zero(Evaluation(command).as_table())
        return
    # What else there is to say must not get between the JSON and its reader.
    with contextlib.redirect_stdout(sys.stderr):
        evaluation = Evaluation(command)
    print_rank_zero(json.dumps(evaluation.as_dict()))


def validate_command(checkpoint: str, episodes: int, others: Sequence[str]) -> list[str]:
    """The command line of `validate` that runs so many episodes of a checkpoint.

    Raises:
        UsageError: if the number of episodes is given in `others` again.
    """
    if option_values(others, "--data.eval_episodes"):
        raise UsageError("--data.eval_episodes: expected --episodes in its place")
    return ["validate", f"--ckpt_path={checkpoint}", *others, f"--data.eval_episodes={episodes}"]


class Evaluation(Application):
    """`validate`, with the return and the length of every episode.

    Attributes:
        returns: undiscounted returns `[K]`.
        lengths: numbers of steps `[K]`.
    """

    def validate(self, model: Algorithm, datamodule: Any, **_: Any) -> None:
        """Evaluates the checkpoint."""
        collected = _Episodes()
        self.trainer.callbacks.append(collected)
        self.load_and_evaluate(model, datamodule)
        self.returns, self.lengths = np.array(collected.returns), np.array(collected.lengths)

    def as_dict(self) -> dict[str, Any]:
        """Everything about the evaluation, as plain values."""
        saved = self.saved_run
        assert saved is not None  # or there was nothing to evaluate
        return {
            "checkpoint": str(saved.path),
            "algorithm": saved.algorithm,
            "environment": self.datamodule.spec.name,
            "env_steps": saved.env_steps,
            "episodes": len(self.returns),
            "return": _summary(self.returns),
            "episode_length": _summary(self.lengths),
            "returns": self.returns.tolist(),
            "episode_lengths": self.lengths.tolist(),
        }

    def as_table(self) -> str:
        """The statistics of returns and lengths as a table."""
        rows = [("", "mean", "std", "95 % interval", "IQM", "min", "max")]
        for name, values in (("return", self.returns), ("episode length", self.lengths)):
            found = _summary(values)
            mean, std, iqm, least, most, *bounds = numbers(
                *(found[key] for key in ("mean", "std", "iqm", "min", "max")), *(found["interval_95"] or ())
            )
            rows.append((name, mean, std, f"[{', '.join(bounds)}]" if bounds else "-", iqm, least, most))
        saved = self.saved_run
        assert saved is not None
        kind = "sampled" if getattr(self.datamodule, "eval_actions", "mode") == "sample" else "deterministic"
        where = f"{saved.path}, after {saved.env_steps:,} env steps: {len(self.returns)} {kind} episodes"
        return f"{where}\n\n{table(rows, right=range(1, 7))}"


class _Episodes(Callback):
    """Keeps what the evaluation's episodes gave."""

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TensorDictBase,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0:  # as in training: the command is about the environment of evaluation
            return
        rewards = batch["next", "reward"].squeeze(-1).double() * batch["mask"]
        self.returns += rewards.sum(-1).tolist()
        self.lengths += batch["mask"].sum(-1).tolist()


def _summary(values: np.ndarray) -> dict[str, Any]:
    bounds = interval(values, "mean")
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "interval_95": None if bounds is None else [float(bound) for bound in bounds],
        "iqm": float(estimate(values, "iqm")),
        "min": float(values.min()),
        "max": float(values.max()),
    }
