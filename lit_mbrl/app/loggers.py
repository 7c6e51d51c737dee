"""Loggers besides the run folder's table (`csv_logger.py`): Weights & Biases and TensorBoard.

The x-axis is the environment step, which `Algorithm.log_metrics` passes as `step`.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightning.pytorch.loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_mbrl.app.tolerant import Tolerant, reason, within
from lit_mbrl.app.watchdog import Watchdog
from lit_mbrl.utils.errors import OptionError, UsageError, did_you_mean

INIT_SECONDS, FINISH_SECONDS = 15.0, 60.0  # how long W&B may take to begin a run, and to send the rest at its end
_MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")


class WandbLogger(lightning.pytorch.loggers.WandbLogger):
    """Weights & Biases: online if there is a key or a sweep, offline otherwise; `WANDB_MODE` decides if it is set.

    Every metric is plotted against `env_steps`. The files lie in the run folder, and a resumed run keeps its id.
    Offline runs are uploaded by `wandb sync <run folder>/wandb/offline-run-*`. An online run whose process is killed is
    reported as failed by its watchdog.

    W&B costs no run: where a run cannot begin online (no server, a wrong key) it is recorded offline, and where W&B's
    service fails later the run goes on with `metrics.csv` alone, with one warning.

    Args:
        project: W&B project; `WANDB_PROJECT`, if set, goes before it.
        name: name of the run; None: the run folder's.
        group: group of runs.
        tags: labels.
        notes: a description.
    """

    def __init__(
        self,
        project: str = "lit_mbrl",
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        super().__init__(
            name=name, project=os.environ.get("WANDB_PROJECT", project), group=group, tags=tags, notes=notes
        )
        del self._wandb_init["anonymous"]  # W&B warns of it whatever its value
        self._wandb_init["settings"] = {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            self._wandb_init["settings"]["init_timeout"] = INIT_SECONDS
        self._named_by_folder = name is None
        self._watchdog: Watchdog | None = None
        self._service = Tolerant("W&B", "the run goes on without it, and metrics.csv has everything", _give_up)

    def use_folder(self, folder: str | Path) -> None:
        """Keeps the run's files in the run folder, and its id in `wandb/id` there.

        Raises:
            UsageError: if `WANDB_MODE` is none of W&B's.
        """
        mode = os.environ.get("WANDB_MODE")
        if mode is not None and mode not in _MODES:
            raise UsageError(f"WANDB_MODE={mode}: expected online, offline or disabled{did_you_mean(mode, _MODES)}")
        # Absolute: W&B's service process outlives a run and need not be in this one's working directory.
        self._folder = Path(folder).absolute()
        self._save_dir = self._wandb_init["dir"] = str(self._folder)
        if self._named_by_folder:
            self._wandb_init["name"] = "/".join(self._folder.parts[-3:])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, begun at the first access; something that does nothing if W&B has failed."""
        if self._experiment is None:
            self._service.attempt(self._begin)
        return Nothing() if self._service.lost else self._experiment

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function that talks to W&B; if it fails, returns None after one warning, and calls no more."""
        return self._service.attempt(function, *args, **kwargs)

    def _begin(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        self._wandb_init["id"] = self._run_id()
        if "WANDB_MODE" not in os.environ and not has_login():
            self._wandb_init["mode"] = "offline"
        try:
            run = super().experiment
        except Exception as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            with contextlib.suppress(Exception):
                within(INIT_SECONDS, _give_up)  # the service still has this run's id
            self._wandb_init["mode"] = "offline"
            run = super().experiment
            command = f"`wandb sync {self.save_dir}/wandb/offline-run-*`"
            where = f"it cannot begin at {run.settings.base_url} ({reason(error)})"
            self._service.warn(f"{where}; this run is recorded offline, and sent by {command}")
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps")
        if not (run.offline or run.disabled):
            self._watchdog = Watchdog(run.entity, run.project, run.id, str(self.save_dir))

    def _run_id(self) -> str:
        path = Path(self.save_dir or ".") / "wandb" / "id"
        chosen = os.environ.get("WANDB_RUN_ID")  # by a sweep's agent
        if chosen or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(chosen or secrets.token_hex(4))
        return path.read_text()

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Adds the configuration, under the names of the command line. A sweep's own choices are there already."""
        self.attempt(self._log_hyperparams, params)

    def _log_hyperparams(self, params: Mapping[str, Any]) -> None:
        run = self.experiment
        if not self._service.lost:
            known = run.config.keys()
            super().log_hyperparams({name: value for name, value in params.items() if name not in known})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs at an environment step. W&B's own step just counts the calls, so it cannot go backwards."""
        self.attempt(self.experiment.log, dict(metrics) | ({} if step is None else {"env_steps": step}))

    def close(self, exit_code: int = 0) -> str | None:
        """Ends the run, as failed if `exit_code` is not 0. Returns the address of its page, None for an offline run."""
        if rank_zero_only.rank > 0:
            return None
        url = None if self._experiment is None else self.attempt(self._finish, exit_code)
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        self._experiment = None
        return url

    def _finish(self, exit_code: int) -> str | None:
        run = self._experiment
        try:
            within(FINISH_SECONDS + INIT_SECONDS, lambda: run.finish(exit_code=exit_code))
        except TimeoutError as error:
            command = f"`wandb sync {self.save_dir}/wandb/*run-*-{run.id}`"
            raise TimeoutError(f"not everything was sent in {FINISH_SECONDS:g} s, {command} sends the rest") from error
        return run.url


class Nothing:
    """Stands for a `wandb.Run` that is lost: every attribute, and what a call of it returns, is nothing again."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Nothing:
        return self


def _give_up() -> None:
    """Has W&B do nothing more at the end of the process, where it would show a traceback or wait."""
    import wandb

    try:
        wandb.teardown()
    finally:
        wandb.run = None  # another run in this process would go on in it


class TensorBoardLogger(lightning.pytorch.loggers.TensorBoardLogger):
    """TensorBoard files in the run folder: `--trainer.logger+=lit_mbrl.app.loggers.TensorBoardLogger`."""

    def __init__(self) -> None:
        try:
            super().__init__(save_dir=".", name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise OptionError(
                "trainer.logger", type(self).__name__, "its package: pip install 'lit-mbrl[tensorboard]'"
            ) from error

    def use_folder(self, folder: str | Path) -> None:
        """Keeps the run's files in the run folder."""
        self._root_dir = str(folder)


def has_login() -> bool:
    """Returns whether W&B could log in without asking: a key, a sweep, a `.netrc` entry or its own settings."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        if netrc.netrc(path).authenticators(host):
            return True
    except (OSError, netrc.NetrcParseError):
        pass  # no file, or none that W&B could read either
    import wandb

    return bool(wandb.setup().settings.api_key)
