"""Sets how much is measured; contenders start and end together."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from benchmarks.contenders.ours import can_compile
from benchmarks.harness.pairs import interleave
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Contender

OURS, COMPILED, SB3, SHEEPRL = "lit_mbrl", "lit_mbrl compiled", "Stable-Baselines3", "sheeprl"
BARE, BARE_COMPILED, MBRL = "bare", "bare compiled", "mbrl-lib"
PEERS = (SB3, SHEEPRL)
# The name in `worker.CONTENDERS`.
PROGRAM = {OURS: "lit_mbrl", COMPILED: "lit_mbrl", SB3: "sb3", SHEEPRL: "sheeprl"}
PROGRAM |= {BARE: "bare", BARE_COMPILED: "bare", MBRL: "mbrl"}


def version(package: str, python: str | None) -> str | None:
    """The version of a package that an interpreter (None: this one) has; None: none."""
    probe = f"import importlib.metadata as m; print(m.version({package!r}))"
    found = subprocess.run([python or sys.executable, "-c", probe], check=False, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


@dataclass(frozen=True)
class Settings:
    """One run of the command.

    Attributes:
        pairs: ratios that a median is taken of.
        blocks: turns of every contender in a pair.
        rounds: rounds of updates of every contender in a pair.
        threads: of torch, for everybody.
        quick: sizes at which everything runs and nothing is measured.
        sheeprl: the interpreter of an environment with sheeprl; None: this one.
        mbrl: that of one with mbrl-lib.
        absent: contender to the line that says why it is left out.
        elsewhere: packages of other environments that take part, and their versions.
    """

    pairs: int = 5
    blocks: int = 4
    rounds: int = 1000
    threads: int = 2
    quick: bool = False
    sheeprl: str | None = None
    mbrl: str | None = None
    absent: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)

    def look_for_peers(self) -> None:
        """Finds out who can take part, and says who cannot."""
        if not can_compile():
            self.absent[COMPILED] = "the algorithms have no option `compile`"
        if importlib.util.find_spec("stable_baselines3") is None:
            self.absent[SB3] = "not installed (extra `peers`)"
        for name, package, python in ((SHEEPRL, "sheeprl", self.sheeprl), (MBRL, "mbrl", self.mbrl)):
            if (found := version(package, python)) is not None:
                self.elsewhere[package] = found
            else:
                self.absent[name] = f"not installed (--{package} names an environment's python that has it)"
        if self.quick:
            for name in (COMPILED, BARE_COMPILED):
                self.absent.setdefault(name, "compiling takes longer than all of --quick")
            for name in (SHEEPRL, MBRL):
                self.absent.setdefault(name, "no thread of --quick")
        for name, reason in self.absent.items():
            print(f"{name}: left out, {reason}", flush=True)

    def say(self, line: str) -> None:
        """Shows that it goes on."""
        if not self.quick:
            print(f"  {line}", flush=True)

    def sized(self, work: Work) -> Work:
        """The work with this run's threads, and at its toy size if it is a quick one."""
        work = replace(work, threads=self.threads)
        if not self.quick:
            return work
        options = ("--data.eval_episodes=1", "--data.env.max_episode_steps=20", *work.options)
        hidden = None if work.hidden is None else (8, 8)
        frames = min(work.frames_per_round, 2 * work.num_envs)
        return replace(
            work, hidden=hidden, batch_size=8, learning_starts=40, frames_per_round=frames, wandb=False, options=options
        )


@contextmanager
def running(
    settings: Settings, works: Mapping[str, tuple[str, Work]], warm: int = 20
) -> Iterator[dict[str, Contender]]:
    """Contenders past their first rounds.

    Args:
        settings: of the run.
        works: name to a contender of `settings` and its work.
        warm: rounds before anything is measured.
    """
    with ExitStack() as stack:
        known: dict[tuple[str, Work], Contender] = {}  # works that differ only in size are one at toy size
        for name, (program, work) in works.items():
            key = program, settings.sized(work)
            if key not in known:
                python = {SHEEPRL: settings.sheeprl, MBRL: settings.mbrl}.get(program)
                known[key] = Contender(PROGRAM[program], key[1], python, in_thread=settings.quick)
                stack.callback(known[key].close)
                settings.say(f"{name}: ready after {known[key].ready():.1f} s")  # one after the other
                known[key].turn(2 if settings.quick else warm)
        yield {name: known[program, settings.sized(work)] for name, (program, work) in works.items()}


def compare(
    settings: Settings, works: Mapping[str, tuple[str, Work]], rounds: int | None = None, warm: int = 20
) -> dict[str, list[float]]:
    """Seconds per round of every contender in every pair.

    Args:
        settings: of the run.
        works: name to a contender of `settings` and its work.
        rounds: rounds per pair; None: the settings'.
        warm: rounds before anything is measured.
    """
    rounds = settings.rounds if rounds is None else min(rounds, settings.rounds)
    blocks = min(settings.blocks, rounds)
    turn = rounds // blocks
    with running(settings, works, warm) as contenders:
        blocks_of = {name: contender.block(turn) for name, contender in contenders.items()}
        seconds = interleave(blocks_of, settings.pairs, blocks, settings.say)
    return {name: [value / (turn * blocks) for value in values] for name, values in seconds.items()}
