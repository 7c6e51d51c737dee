"""The command line of `fit` and `validate`: Lightning's, with our options, and one line about what is wrong with it."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from omegaconf.errors import OmegaConfBaseException

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app import CONF
from lit_mbrl.app.components import check_config
from lit_mbrl.app.messages import ParseError, explain
from lit_mbrl.app.parser import Parser
from lit_mbrl.app.trainer_options import check_options
from lit_mbrl.callbacks import Checkpoint, ProgressBar
from lit_mbrl.utils.errors import OptionError, UsageError


class CommandLine(LightningCLI):
    """Lightning's command line with our options; construction parses, checks and runs the command.

    Args:
        arguments: for the parser (`arguments.with_config_of_checkpoint`).
    """

    argv: list[str]  # the words of the user, for messages

    def __init__(self, arguments: Sequence[str]) -> None:
        # What the help says about an option stands below it; to look there takes seconds.
        set_parsing_settings(docstring_parse_attribute_docstrings=any("help" in word for word in arguments))
        # omegaconf+: interpolations are resolved after the command line has been applied, by `Parser`.
        parser: dict[str, Any] = {"parser_mode": "omegaconf+"}
        command = parser | {"default_config_files": [str(CONF / "base.yaml")]}
        super().__init__(
            Algorithm,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            parser_kwargs=parser | {name: dict(command) for name in self.subcommands()},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=list(arguments),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's `fit` and `validate`."""
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate")}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Names the program."""
        kwargs.setdefault("prog", "python -m lit_mbrl")
        kwargs.setdefault("description", "Model-based and maximum-entropy reinforcement learning.")
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints and progress are always there, so they have keys of their own; threads are torch's."""
        parser.add_argument(
            "--num_threads",
            type=int | None,
            default=None,
            help="CPU threads of torch; null: torch's own choice, one per core",
        )
        parser.add_argument(
            "--non_finite",
            type=typing.Literal["stop", "skip"],
            default="stop",
            help="what a NaN or infinite loss or gradient does: stop the run, or skip that step and count it",
        )
        parser.add_argument(
            "--fast_path",
            type=bool,
            default=True,
            help="let training steps bypass Lightning where it has nothing to do around them; the results are the same",
        )
        parser.add_argument(
            "--stage", type=str | None, default=None, help="stop when this stage is over; null: run all that there are"
        )
        parser.add_argument(
            "--init_from", type=str | None, default=None, help="a checkpoint whose weights a new run starts with"
        )
        parser.add_argument(
            "--init_parts",
            type=list[str] | None,
            default=None,
            help="which of its weights, as [actor,critic]; null: those of every part that the algorithm has",
        )
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.add_lightning_class_args(ProgressBar, "progress")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Turns whatever the parser has to say into one line."""
        try:
            self.config = parser.parse_args(args)
        except (ParseError, OmegaConfBaseException) as error:
            command = self._subcommand_parsers.get(args[0] if args else "")
            raise UsageError(explain(error, self.argv, command.options() if command else ())) from error
        check_config(self.config[self.config.subcommand])
        if self.config.subcommand == "fit":
            check_options(self.config.fit.trainer)

    def _parse_ckpt_path(self) -> None:
        """Leaves the checkpoint alone: Lightning looks for hyper-parameters in it, ours are in `config.yaml`."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            seed = self.config[self.subcommand].seed_everything
            raise OptionError("seed_everything", seed, f"a seed ({error})") from error
