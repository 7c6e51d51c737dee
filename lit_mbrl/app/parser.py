"""Lightning's parser and the config it saves, with errors for us to explain."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lit_mbrl.app.messages import ParseError
from lit_mbrl.app.resume import flatten


class Parser(LightningArgumentParser):
    """A parser that raises `ParseError` instead of printing usage and exiting, and takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"allow_abbrev": False}))  # jsonargparse's nested parsers, too

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # one of jsonargparse's own nested parsers, which catches
            super().error(message, ex)
        raise ParseError(message) from ex

    def options(self) -> list[str]:
        """Every long option string."""
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]


class SaveConfig(SaveConfigCallback):
    """Writes the resolved `config.yaml` into the run folder and into checkpoints, and tells the loggers of it."""

    @functools.cached_property
    def text(self) -> str:
        """The configuration as YAML."""
        return self.parser.dump(self.config, skip_unset=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets a resumed run tell what has changed."""
        checkpoint["config"] = self.text

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        entries = dict(flatten(yaml.safe_load(self.text)))
        for logger in trainer.loggers:
            logger.log_hyperparams(entries)
