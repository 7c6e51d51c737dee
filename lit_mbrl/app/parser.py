"""Lightning's parser and the config it saves, with errors for us to explain."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lit_mbrl.app.interpolation import resolve
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

    def _parse_common(self, cfg: Namespace, **kwargs: Any) -> Namespace:
        """Resolves interpolations with the command's configuration as their root.

        jsonargparse would have the root above the commands, lose which config files were given, and name no option.
        """
        command = cfg.get("subcommand")
        if command is not None and isinstance(cfg.get(command), Namespace) and "${" in str(cfg):
            plain = yaml.safe_load(self.dump(cfg, skip_validation=True, skip_unset=False, skip_link_targets=False))
            files = cfg[command].get("config")
            cfg = self._apply_actions({"subcommand": command, command: resolve(plain[command])})
            cfg[command].config = files
        return super()._parse_common(cfg, **kwargs)

    def options(self) -> list[str]:
        """Every long option string."""
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]


class SaveConfig(SaveConfigCallback):
    """Writes the resolved `config.yaml` into the run folder and into checkpoints, and tells the loggers of it.

    Args:
        parser: of the command.
        config: what is written.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config, save_to_log_dir=False)

    @functools.cached_property
    def text(self) -> str:
        """The configuration as YAML."""
        return self.parser.dump(self.config, skip_unset=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets a resumed run tell what has changed."""
        checkpoint["config"] = self.text

    def write(self, folder: Path) -> None:
        """Writes `config.yaml`, in one step; a link in its place is replaced, and not followed."""
        temporary = folder / "config.yaml.tmp"
        temporary.unlink(missing_ok=True)
        temporary.write_text(self.text)
        os.replace(temporary, folder / "config.yaml")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.write(Path(trainer.default_root_dir))
        entries = dict(flatten(yaml.safe_load(self.text)))
        for logger in trainer.loggers:
            logger.log_hyperparams(entries)
