"""`python -m benchmarks`: the same work through lit_mbrl, its peers and the bare loop, in interleaved pairs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness.report import Table, origin, write
from benchmarks.harness.settings import COMPILED, Settings
from benchmarks.studies import parts
from benchmarks.suites import (
    buffers,
    checkpoints,
    collecting,
    compiling,
    dreamer,
    mbpo,
    off_policy,
    on_policy,
    start_up,
    svg,
)

SECTIONS: dict[str, Callable[[Settings], Iterator[Table]]] = {
    "sac": partial(off_policy.run, algorithm="sac"),
    "td3": partial(off_policy.run, algorithm="td3"),
    "ddpg": partial(off_policy.run, algorithm="ddpg"),
    "ppo": on_policy.run,
    "profile": lambda settings: profile(settings),
    "svg": svg.run,
    "mbpo": mbpo.run,
    "replay": buffers.run,
    "collector": collecting.run,
    "checkpoint": checkpoints.run,
    "start_up": start_up.run,
    "compile": compiling.run,
    "dreamer": dreamer.run,
}
_QUICK = {"pairs": 1, "blocks": 1, "rounds": 2, "threads": 1}


def profile(settings: Settings) -> Iterator[Table]:
    """The parts of SAC's round at the sizes of the comparison."""
    hidden, batch = ([8, 8], 8) if settings.quick else ([256, 256], 256)
    rounds = 20 if settings.quick else 2 * settings.rounds
    starts, epoch = (40, 50) if settings.quick else (1000, 1000)
    for name, option in (("eager", []), ("compiled", ["--model.compile=true"])):
        if option and COMPILED in settings.absent:
            continue
        print(f"profile, {name}", flush=True)
        argv = ["--config", "conf/sac.yaml", f"--model.hidden_sizes={hidden}", *option]
        argv += ["--data.total_frames=100000", f"--data.batch_size={batch}", f"--data.learning_starts={starts}"]
        argv += [f"--data.epoch_frames={epoch}", f"--num_threads={settings.threads}", "--trainer.accelerator=cpu"]
        argv += ["--data.env.max_episode_steps=20", "--trainer.logger=null"] if settings.quick else []
        measured = parts.measure(argv, rounds, warm=5 if settings.quick else 50)
        yield parts.table(measured, f"profile_{name}", f"The parts of SAC's round on Pendulum-v1, {name}")


def options(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", help=f"comma-separated, of {','.join(SECTIONS)}")
    parser.add_argument("--pairs", type=int, default=5, help="pairs that a median is taken of")
    parser.add_argument("--blocks", type=int, default=4, help="turns of each in a pair")
    parser.add_argument(
        "--rounds", type=int, default=1000, help="rounds of each in a pair (1000: an epoch of base.yaml)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's threads, for everybody")
    parser.add_argument("--sheeprl", metavar="PYTHON", help="interpreter of an environment that has sheeprl")
    parser.add_argument("--mbrl", metavar="PYTHON", help="interpreter of an environment that has mbrl-lib")
    parser.add_argument("--quick", action="store_true", help="run everything at toy size; measures nothing")
    parser.add_argument("--out", type=Path, help="writes OUT.md (between its marks, if it has them) and OUT.json")
    args = parser.parse_args(argv)
    args.only = list(SECTIONS) if args.only is None else args.only.split(",")
    for name in args.only:
        if name not in SECTIONS:
            parser.error(f"--only={name}: expected some of {','.join(SECTIONS)}")
    for name in ("pairs", "blocks", "rounds", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: expected an integer > 0")
    if args.rounds < args.blocks:
        parser.error(f"--rounds={args.rounds}: expected at least --blocks={args.blocks}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--profile"]:
        return parts.main(argv[1:])
    args = options(argv)
    sizes = _QUICK if args.quick else {name: getattr(args, name) for name in _QUICK}
    settings = Settings(**sizes, quick=args.quick, sheeprl=args.sheeprl, mbrl=args.mbrl)
    settings.look_for_peers()
    for section in args.only:
        for table in SECTIONS[section](settings):
            command = f"python -m benchmarks {shlex.join(_without_paths(argv))}".strip()
            table.origin = origin(command, settings.threads, settings.elsewhere)
            print("\n" + table.markdown(), flush=True)
            if args.out is not None:  # at once: a long run that is cut short leaves what it has measured
                write([table], args.out)
    return 0


def _without_paths(argv: Sequence[str]) -> list[str]:
    """The arguments as another machine would give them: of absolute paths the last part."""
    pieces = [word.rpartition("=") for word in argv]
    return [name + sign + (Path(value).name if Path(value).is_absolute() else value) for name, sign, value in pieces]


if __name__ == "__main__":
    sys.exit(main())
