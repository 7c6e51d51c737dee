"""The commands, as `python -m lit_mbrl --help` shows them. Imports nothing, so that it answers at once."""

from __future__ import annotations

from collections.abc import Sequence

COMMANDS = ("fit", "validate", "evaluate", "video", "plot", "model_error", "qualify", "paper", "list")
HELP = ("--help", "-h")
OVERVIEW = """usage: python -m lit_mbrl {fit,validate,evaluate,video,plot,model_error,qualify,paper,list} ...

Model-based and maximum-entropy reinforcement learning.

  fit          train, or go on with a run
                 python -m lit_mbrl fit --config conf/sac_svg.yaml --model.horizon=3 --seed_everything=1
                 python -m lit_mbrl fit --config conf/sac_svg.yaml --ckpt_path last
  evaluate     episodes of a checkpoint, as a table or JSON
                 python -m lit_mbrl evaluate --ckpt_path runs/.../checkpoints/best.ckpt --episodes=20
  validate     its return alone, with every option of fit
                 python -m lit_mbrl validate --ckpt_path runs/.../checkpoints/best.ckpt
  video        a film of it
                 python -m lit_mbrl video --ckpt_path runs/.../checkpoints/best.ckpt
  plot         learning curves of runs, and a table
                 python -m lit_mbrl plot runs/sac_svg runs/sac --out curves
  qualify      does a config dependably learn? many seeds, other roundings
                 python -m lit_mbrl qualify sac_svg --seeds 10-19
  paper        a table or figure of a paper: its runs, and a report
                 python -m lit_mbrl paper sac_svg/table_2 --budget laptop
  model_error  how far world models are from the truth, on the data of a run
                 python -m lit_mbrl model_error --ckpt_path runs/.../checkpoints/last.ckpt
  list         the algorithms, their papers and their configs
                 python -m lit_mbrl list

Each has a --help of its own. The options of an algorithm or of data: python -m lit_mbrl fit --model.help SACSVG,
fit --data.help OffPolicy; all with their values: fit --config conf/sac_svg.yaml --print_config. --trust, beside a
command, lets a config that comes with a checkpoint name modules that are not installed."""


def misspelt(argv: Sequence[str]) -> str | None:
    """Returns the first word of a command line if it is neither a command nor an option; None: it is, or there is one.

    Options may come before their command.
    """
    first = argv[0] if argv else ""
    return None if first.startswith("-") or any(word in COMMANDS for word in argv) else first
