"""Times the parts of a training step.

    python -m benchmarks.studies.parts --config conf/sac.yaml [any option of fit] [--rounds 1000]

Runs `python -m lit_mbrl fit` with those options and prints how the time of its rounds divides into parts. Time belongs
to the innermost part that is running, and what no part claims is Lightning's, so the parts add up to the whole, which
is measured apart from them. Nothing of this is in the library: the methods that make up the parts are wrapped when the
first round is over, and unwrapped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.contenders.ours import fit
from benchmarks.harness.report import Table
from benchmarks.harness.worker import Finished
from lit_mbrl.app.application import run_command
from lit_mbrl.callbacks import Checkpoint, SoftTargetUpdate
from lit_mbrl.data.loaders import CollectorPolicy
from lit_mbrl.envs.pool import LocalPool, WorkerPool
from lit_mbrl.training import fast_path
from lit_mbrl.utils.errors import require

REST, EVALUATION, CHECKPOINT = "Lightning: the rest", "evaluation", "checkpoint"
ROUND, FINITE = "updates: the rest", "updates: are they finite"
_WHOLES = (EVALUATION, CHECKPOINT)  # whatever runs in them is theirs
_ORDER = ("collect", "replay", "prepare", "updates", "soft", "callbacks", "logging", "Lightning", "checkpoint", "eval")


class Stopwatch:
    """Gives every moment to one part.

    Attributes:
        seconds: part to its time.
        synchronize: waits for the device, so that its work belongs to the part that asked for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {REST: 0.0}
        self.synchronize: Callable[[], None] = lambda: None
        self._running = [REST]
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Forgets what has been measured."""
        self.seconds = {REST: 0.0}
        self._last = time.perf_counter()

    def flush(self) -> None:
        """Gives the time up to now to the running part."""
        self.synchronize()
        now = time.perf_counter()
        part = self._running[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def timed(self, function: Callable[..., Any], part: str | Callable[[], str]) -> Callable[..., Any]:
        """The function, whose time is the part's."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.flush()
            outer = self._running[-1]
            self._running.append(outer if outer in _WHOLES else part if isinstance(part, str) else part())
            try:
                return function(*args, **kwargs)
            finally:
                self.flush()
                self._running.pop()

        return run


class Parts(Callback):
    """Measures `rounds` rounds after `warm` others, then ends the run.

    Attributes:
        watch: the parts, in seconds.
        whole: seconds from the first measured round's beginning to the last one's end.
    """

    def __init__(self, rounds: int, warm: int) -> None:
        self.rounds, self.warm = rounds, warm
        self.watch = Stopwatch()
        self.whole = self._begin = 0.0
        self._seen = 0
        self._update = ""
        self._undo = contextlib.ExitStack()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Counts, wraps, ends."""
        self._seen += 1
        if self._seen == 1:
            self._wrap(trainer, pl_module)
        if self._seen == self.warm:
            self.watch.restart()
            self._begin = time.perf_counter()
        if self._seen == self.warm + self.rounds:
            self.watch.flush()
            self.whole = time.perf_counter() - self._begin
            self._undo.close()
            raise Finished

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves nothing wrapped."""
        self._undo.close()

    # ------------------------------------------------------------------ what is wrapped
    def _time(self, owner: Any, name: str, part: str | Callable[[], str]) -> None:
        function, was_own = getattr(owner, name), name in vars(owner)
        setattr(owner, name, self.watch.timed(function, part))
        self._undo.callback(*((setattr, owner, name, function) if was_own else (delattr, owner, name)))

    def _wrap(self, trainer: Trainer, module: LightningModule) -> None:
        if module.device.type == "cuda":
            self.watch.synchronize = torch.cuda.synchronize
        data = trainer.datamodule
        for pool in (LocalPool, WorkerPool):
            self._time(pool, "step", "collect: environment")
            self._time(pool, "reset", "collect: environment")
        self._time(CollectorPolicy, "forward", "collect: policy")
        self._time(data.collector, "rollout", "collect: collector")
        self._time(data, "collect", "collect: the rest")
        self._time(data.replay, "extend", "replay: extend")
        self._time(data, "sample", "replay: sample")
        self._time(module, "prepare_batch", "prepare the batch")
        self._time(module, "training_step", ROUND)
        self._time(fast_path, "backward", lambda: f"updates: {self._update}, backward")
        self._time(fast_path, "step", lambda: f"updates: {self._update}, optimiser")
        self._time(module.finite, "check", FINITE)
        self._name_updates(module)
        for name in ("log_training", "log_metrics"):
            self._time(module, name, "logging")
        for callback in trainer.callbacks:
            if callback is not self:
                part = "soft update of the targets" if isinstance(callback, SoftTargetUpdate) else "callbacks: the rest"
                for hook in ("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end"):
                    self._time(callback, hook, part)
            if isinstance(callback, Checkpoint):
                self._time(callback, "save", CHECKPOINT)
        self._time(trainer.fit_loop.epoch_loop.val_loop, "run", EVALUATION)

    def _name_updates(self, module: Any) -> None:
        gradient_step = module.gradient_step

        def named(update: Any, optimizer: Any, frames: Any, given: Any) -> Any:
            self._update = update.name
            loss = self.watch.timed(update.loss, f"updates: {update.name}, forward and loss")
            return gradient_step(dataclasses.replace(update, loss=loss), optimizer, frames, given)

        module.gradient_step = named
        self._undo.callback(delattr, module, "gradient_step")

    # ------------------------------------------------------------------ what comes of it
    def microseconds(self) -> dict[str, float]:
        """Part to its time per round, in the order of a round."""
        parts = self.watch.seconds
        if not any(name.endswith("forward and loss") for name in parts):
            parts = {("updates: compiled round" if name == ROUND else name): value for name, value in parts.items()}
        names = sorted(parts, key=lambda name: [name.startswith(word) for word in _ORDER].index(True))
        return {name: parts[name] / self.rounds * 1e6 for name in names}


def not_arithmetic(parts: dict[str, float]) -> float:
    """Share of a round, evaluations left out, that is neither an update's arithmetic nor the soft update."""
    whole = sum(value for name, value in parts.items() if name != EVALUATION)
    arithmetic = sum(
        value
        for name, value in parts.items()
        # what is left of eager updates is Python, and the look at gradients no arithmetic of theirs
        if name.startswith(("updates: ", "soft update")) and name not in (ROUND, FINITE)
    )
    return 1 - arithmetic / whole


def measure(argv: Sequence[str], rounds: int, warm: int = 50) -> Parts:
    """The parts of the rounds of `python -m lit_mbrl fit`.

    Args:
        argv: options of `fit`.
        rounds: rounds to measure.
        warm: rounds before them, at least one.

    Raises:
        OptionError: if the run ends before that.
    """
    parts = Parts(rounds, warm)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        fit(["fit", f"--trainer.default_root_dir={folder}", *argv], parts)
    require(parts.whole > 0, "rounds", rounds, f"less than the run has: {warm} + {rounds} have not taken place")
    return parts


def table(parts: Parts, name: str, title: str) -> Table:
    """One row per part, and the sum beside the whole."""
    microseconds, whole = parts.microseconds(), parts.whole / parts.rounds * 1e6
    rows = [[part, f"{value:,.0f}", f"{value / whole:.1%}"] for part, value in microseconds.items()]
    total = sum(microseconds.values())
    rows.append(["sum of the parts", f"{total:,.0f}", f"{total / whole:.1%}"])
    rows.append(["whole round, by its own clock", f"{whole:,.0f}", "100.0%"])
    share = not_arithmetic(microseconds)
    note = f"Not network arithmetic: {share:.1%} of a round (evaluations left out; acting counts as collecting)."
    raw = {"microseconds": microseconds, "whole": whole, "rounds": parts.rounds, "not_arithmetic": share}
    return Table(name, title, ["part", "microseconds per round", "share"], rows, [note], raw)


def main(argv: Sequence[str]) -> int:
    """The command; a user's mistake is one line and exit code 2, as of `fit`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.parts",
        description="The parts of a round of `python -m lit_mbrl fit`, whose options follow.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--rounds", type=int, default=1000, help="rounds to measure (1000: one epoch of conf/base.yaml)"
    )
    parser.add_argument("--warm", type=int, default=50, help="rounds before them")
    own, options = parser.parse_known_args(argv)
    for name in ("rounds", "warm"):
        if getattr(own, name) < 1:
            parser.error(f"--{name}={getattr(own, name)}: expected an integer > 0")

    def show(words: Sequence[str]) -> None:
        print(table(measure(words, own.rounds, own.warm), "parts", " ".join(["fit", *words])).markdown())

    return run_command(show, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
