"""The application: Lightning's command line, with run folders, checks before anything is created, and plain output."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app import slurm
from lit_mbrl.app.arguments import option_values, resume_command, with_config_of_checkpoint
from lit_mbrl.app.bounds import NormalizerBounds
from lit_mbrl.app.checkpoints import CheckpointInfo, raised_while_loading, read_checkpoint, wrong_entries
from lit_mbrl.app.command_line import CommandLine
from lit_mbrl.app.components import class_of
from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.app.env_errors import say_remarks, with_traceback
from lit_mbrl.app.guard import run_command, trainer_errors
from lit_mbrl.app.init_from import initial_weights
from lit_mbrl.app.location import Location, locate, require_checkpoint
from lit_mbrl.app.loggers import TensorBoardLogger, WandbLogger
from lit_mbrl.app.messages import explain_instantiation, explain_trainer
from lit_mbrl.app.output import evaluation, has_screen, print_rank_zero, shorten, summary
from lit_mbrl.app.parser import SaveConfig
from lit_mbrl.app.preflight import (
    check_run_disk,
    networks,
    require_devices,
    require_episodes,
    require_match,
    require_memory,
    require_monitor,
)
from lit_mbrl.app.resume import with_changes
from lit_mbrl.app.run_folder import claim, existing_parent, locked, make_folder, require_no_run
from lit_mbrl.app.stages import StopAfterStage, check_stage
from lit_mbrl.app.trainer_options import check_callbacks
from lit_mbrl.callbacks import GracefulStop, Interrupted, duration
from lit_mbrl.envs.tasks.procgen_games import is_game
from lit_mbrl.training.checks import check_device, check_precision, check_targets
from lit_mbrl.training.ddp import ManualDDPStrategy, check_names, check_trainer, register
from lit_mbrl.utils.errors import OptionError, TrainingError, UsageError, printable, require
from lit_mbrl.utils.overdue import WATCH
from lit_mbrl.utils.trust import needs_trust, only_installed


def run(argv: Sequence[str]) -> int:
    """Parses, checks and runs. Returns the exit code; a user's mistake is printed as one line and gives 2."""
    with ExitStack() as until_the_end:
        return run_command(lambda words: Application(words, until_the_end), argv)


class Application(CommandLine):
    """`fit` and `validate`; construction runs the command.

    Everything that can be wrong with the input is found, and raised as `OptionError` or `UsageError`, before the run
    folder is created and before anything is logged.

    Args:
        argv: the command line.
        until_the_end: what a run of `fit` holds as long as it goes on: the lock of its folder.
    """

    def __init__(self, argv: Sequence[str], until_the_end: ExitStack | None = None) -> None:
        self.argv = list(argv)
        self.until_the_end = until_the_end or ExitStack()
        arguments, saved_by = with_config_of_checkpoint(self.argv)
        self.location: Location
        self.run_folder = Path()
        self.saved_run: CheckpointInfo | None = None
        self.changed: list[str] = []
        self.graceful_stop = GracefulStop()
        self.stop_after: StopAfterStage | None = None
        with only_installed(saved_by):
            super().__init__(arguments)

    # ------------------------------------------------------------------ checks, then creation
    def before_instantiate_classes(self) -> None:
        """Decides on the run folder and on the checkpoint to go on from, without touching the disk."""
        config = self.config[self.subcommand]
        threads = config.num_threads
        if threads is not None:
            torch.set_num_threads(threads)
        training = self.subcommand == "fit"
        if not training:
            require_checkpoint(config)
        self.location = locate(config, self.argv, training)
        self.run_folder, self.saved_run = self.location.run_folder, self.location.saved
        if self.saved_run is not None:
            if training:
                current = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False))
                classes = {key: class_of(config[key]) for key in ("model", "data")}
                self.saved_run, self.changed = with_changes(self.saved_run, current, classes)
            config.ckpt_path = str(self.saved_run.path)

    def instantiate_classes(self) -> None:
        """Builds data module, algorithm and trainer."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if (line := explain_instantiation(error)) is not None:
                raise UsageError(line) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer; for `fit` with our callbacks, in the order in which they have to run, and our loggers."""
        config = dict(self._get(self.config_init, "trainer")) | kwargs
        config["default_root_dir"] = str(self.run_folder)
        callbacks = config["callbacks"] or []
        callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        config["logger"] = self._loggers(config["logger"]) if self.subcommand == "fit" else False
        if self.subcommand == "fit":
            if not config["enable_progress_bar"]:
                callbacks.append(self._get(self.config_init, "progress"))
            callbacks += [self.graceful_stop, NormalizerBounds()]
            if (stage := self._get(self.config_init, "stage")) is not None:
                self.stop_after = StopAfterStage(stage)
                callbacks.append(self.stop_after)
            if not config["fast_dev_run"]:
                callbacks.append(self._save_config())
            if config["enable_checkpointing"] is not False:
                callbacks.append(self._get(self.config_init, "checkpoint"))
        else:
            config["enable_checkpointing"] = None
            callbacks.append(self._get(self.config_init, "checkpoint"))  # its state is in the checkpoint
        config["callbacks"] = callbacks
        config["plugins"] = slurm.without_requeue(config["plugins"]) or None
        register()
        check_names(config["strategy"], config["precision"])
        try:
            trainer = Trainer(**config)
        except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
            raise UsageError(explain_trainer(error, self._get(self.config, "trainer").as_dict())) from error
        check_trainer(trainer, config["precision"])
        slurm.leave_checkpoints(trainer)
        threads = self._get(self.config, "num_threads")
        if trainer.world_size > 1 and threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # or Lightning would share the cores out when it launches
        return trainer

    def _loggers(self, wanted: Any) -> list[Logger]:
        others = [] if wanted in (None, True, False) else list(wanted) if isinstance(wanted, list) else [wanted]
        for logger in others:
            if isinstance(logger, (WandbLogger, TensorBoardLogger)):
                logger.use_folder(self.run_folder)
        saved = self.saved_run
        return [CsvLogger(self.run_folder, (saved.env_steps, saved.train_steps) if saved else None), *others]

    def _save_config(self) -> SaveConfig:
        config = self.config[self.subcommand].clone()
        # So that `--config .../config.yaml` starts the run anew, elsewhere.
        config.ckpt_path = config.trainer.default_root_dir = config.stage = None
        return SaveConfig(self._parser(self.subcommand), config)

    def after_instantiate_classes(self) -> None:
        """The checks that need the objects; then, for `fit`, creates the run folder."""
        spec = self.datamodule.spec
        self.model.check(spec)
        self.datamodule.check_algorithm(self.model)
        devices = self.trainer.world_size
        self.model.check_devices(devices)
        self.datamodule.split_across_ranks(devices)
        self.datamodule.check(str(existing_parent(self.run_folder)))
        twin = networks(self.model, spec)
        require_memory(twin, self.datamodule, vars(self._get(self.config, "model").init_args))
        if self.subcommand == "fit":
            self.model.check_start(spec)
            check_device(self.model, self.trainer.strategy.root_device)
            check_precision(twin, self.trainer.precision_plugin)
            given = self._get(self.config, "trainer").callbacks
            check_targets(twin, self.trainer.callbacks, given)
            self.datamodule.check_sampling(twin)
            require_episodes(twin, self.datamodule)
            require_monitor(self._get(self.config, "checkpoint").monitor, self.model, self.datamodule)
            check_callbacks(self.trainer, self.model, self.datamodule)
            for callback in self.trainer.callbacks:
                if hasattr(callback, "check"):
                    callback.check(self.trainer, self.datamodule)
        check_stage(self._get(self.config, "stage"), self.subcommand, self.model, self.datamodule, self.saved_run)
        started_from = self._add_initial_weights(twin)
        if self.saved_run is not None:
            require_match(self.saved_run, twin, self.model.stages(self.datamodule))
            if self.subcommand == "fit":
                require_devices(self.saved_run, self.trainer.world_size)
        if self.subcommand == "fit" and not self.trainer.fast_dev_run:
            check_run_disk(self.trainer, self.datamodule, twin, self.run_folder)
        say_remarks(spec, self.datamodule.env)
        if self.location.damage is not None:
            print(f"warning: {printable(self.location.damage)}", file=sys.stderr)
        if self.subcommand == "fit" and not self.trainer.fast_dev_run:
            self._take_folder()
        parameters = sum(parameter.numel() for parameter in twin.parameters() if parameter.requires_grad)
        print_rank_zero(
            f"{type(self.model).__name__} ({self.model.paper}) on {spec.name}: observation {spec.observation_dim}, "
            f"action {spec.action_dim}, {parameters:,} parameters, seed {self._get(self.config, 'seed_everything')}, "
            f"{self.trainer.strategy.root_device}{f' and {devices - 1} more' if devices > 1 else ''}"
        )
        if started_from:
            print_rank_zero(f"starts from {started_from}")

    def _add_initial_weights(self, twin: Algorithm) -> str | None:
        """Lets a new run start from `init_from`, and says what it takes from there."""
        path, parts = (self._get(self.config, name) for name in ("init_from", "init_parts"))
        asked = bool(option_values(self.argv, "--init_from", "--init_parts"))
        resumed = "one of --ckpt_path, which goes on with a run, and --init_from, which begins one"
        require(not (asked and self.saved_run), "init_from", path, resumed)
        require(path is not None or parts is None, "init_parts", parts, "--init_from=<checkpoint> beside it")
        if path is None or self.subcommand != "fit" or self.saved_run is not None:
            return None
        callback, line = initial_weights(Path(path), parts, twin)
        self.trainer.callbacks.append(callback)
        return line

    @property
    def _checkpoints(self) -> str:
        """Name of the folder for checkpoints."""
        return self._get(self.config, "checkpoint").folder

    def _take_folder(self) -> None:
        """Creates the run folder and keeps other runs out of it."""
        rank_zero, checkpoints = self.trainer.is_global_zero, self._checkpoints
        if self.location.is_new and rank_zero and (folder := claim(self.run_folder)) != self.run_folder:
            # Another run of the same second has it.
            self.run_folder = folder
            self.trainer._default_root_dir = str(folder)
            for logger in self.trainer.loggers:
                if hasattr(logger, "use_folder"):
                    logger.use_folder(folder)
        make_folder(self.run_folder, checkpoints)
        if rank_zero:  # the other processes of a run share its folder
            self.until_the_end.enter_context(locked(self.run_folder))
            if not self.location.goes_on:
                require_no_run(self.run_folder, checkpoints)  # which another run may have filled in the meantime

    # ------------------------------------------------------------------ commands
    def fit(self, model: Algorithm, datamodule: Any, **_: Any) -> None:
        """Trains, and ends with one line that says where everything is."""
        saved = self.saved_run
        model.finite.action = self._get(self.config, "non_finite")
        model.fast_path = self._get(self.config, "fast_path")
        print_rank_zero(
            f"run folder: {shorten(self.run_folder)}{f', resumed at {saved.env_steps:,} env steps' if saved else ''}"
        )
        if self.changed:
            print_rank_zero(f"changed since the checkpoint: {', '.join(self.changed)}")
        several = self.trainer.strategy if isinstance(self.trainer.strategy, ManualDDPStrategy) else None
        WATCH.last_words = self._last_checkpoint
        start, exit_code = time.monotonic(), 1
        try:
            with trainer_errors():
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=saved and saved.path, weights_only=True)
            exit_code = 0
        except Interrupted:
            exit_code = 0  # the checkpoint is written
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full and not str(error.filename or "").startswith(str(self.run_folder)):
                raise
            raise TrainingError(
                f"{error.strerror}: {error.filename or 'a file of the run'}; {self._last_checkpoint()}"
            ) from error
        except TrainingError as error:
            what = with_traceback(error, self.run_folder)
            # Not as its cause: the traceback has its file.
            raise TrainingError(f"{what}. At {datamodule.env_steps:,} env steps; {self._last_checkpoint()}") from None
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            if saved is not None and raised_while_loading(error) and not isinstance(error, OptionError):
                raise wrong_entries(saved.path, error) from error
            if several is None or (what := several.explain(error)) is None:
                raise
            raise TrainingError(f"{what}. At {datamodule.env_steps:,} env steps; {self._last_checkpoint()}") from error
        finally:
            if several is not None and exit_code:
                several.stop_others()
            with self.graceful_stop.undisturbed():
                # After an exception Lightning tears nothing down.
                datamodule.teardown("fit")
                urls = [logger.close(exit_code) for logger in self.trainer.loggers if isinstance(logger, WandbLogger)]
            WATCH.ask_to_stop(False)
            WATCH.last_words = str
        for url in filter(None, urls):
            print_rank_zero(f"W&B: {url}")
        for callback in self.trainer.callbacks:
            if isinstance(callback, SaveConfig) and not (self.run_folder / "config.yaml").is_file():
                callback.write(self.run_folder)  # somebody has removed it
        schedule = datamodule.update_schedule
        left = schedule.train_steps < schedule.train_steps_due(datamodule.total_frames)
        if self.graceful_stop.requested and (left or datamodule.env_steps < datamodule.total_frames):
            resume = resume_command(self.argv, self.run_folder, self._checkpoints)
            print_rank_zero(f"Stopped at {datamodule.env_steps:,} env steps. Resume: {resume}")
            if self.trainer.is_global_zero and (line := slurm.requeue(self.graceful_stop.received)):
                print_rank_zero(line)
        elif self.stop_after is not None and self.stop_after.stopped and left:
            resume = resume_command(self.argv, self.run_folder, self._checkpoints)
            print_rank_zero(f"Stage {self.stop_after.stage} is over. Go on: {resume}")
        else:
            done = f"Finished: {datamodule.env_steps:,} env steps in {duration(time.monotonic() - start)}"
            clocks = datamodule.env_steps, datamodule.train_steps
            if saved is not None and (saved.env_steps, saved.train_steps) == clocks:
                limit = f"trainer.max_epochs={self._get(self.config, 'trainer').max_epochs}"
                if saved.env_steps >= datamodule.total_frames:
                    limit = f"data.total_frames={datamodule.total_frames}"
                done = f"Finished: {saved.env_steps:,} env steps before this command, which had nothing to do ({limit})"
            env = datamodule.env  # games open no window, and neither does what an agent sees as images
            window = has_screen() and not (is_game(env.name) or env.pixels)
            trust = needs_trust([self._get(self.config, part).as_dict() for part in ("model", "data", "trainer")])
            metrics, checkpoints = self.trainer.callback_metrics, self._checkpoints
            print_rank_zero(summary(done, metrics, self.run_folder, window, checkpoints, trust))

    def _last_checkpoint(self) -> str:
        path = self.run_folder / self._checkpoints / "last.ckpt"
        if not path.is_file():
            return "there is no checkpoint yet"
        saved = read_checkpoint(path)
        return f"the last good checkpoint is {shorten(path)} ({saved.env_steps:,} env steps)"

    def validate(self, model: Algorithm, datamodule: Any, **_: Any) -> None:
        """Evaluates a checkpoint and prints its return."""
        saved = self.load_and_evaluate(model, datamodule)
        length = self.trainer.callback_metrics["eval/episode_length"]
        print_rank_zero(
            f"{evaluation(self.trainer.callback_metrics)} over {datamodule.eval_episodes} episodes of {length:.0f} "
            f"steps on average, after {saved.env_steps:,} env steps"
        )

    def load_and_evaluate(self, model: Algorithm, datamodule: Any) -> CheckpointInfo:
        """Loads the checkpoint and runs its evaluation episodes; the metrics are in `trainer.callback_metrics`."""
        saved = self.saved_run
        assert saved is not None  # `before_instantiate_classes` has checked
        try:
            with trainer_errors():
                self.trainer.validate(model, datamodule, ckpt_path=saved.path, verbose=False, weights_only=True)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            if raised_while_loading(error) and not isinstance(error, (OptionError, TrainingError)):
                raise wrong_entries(saved.path, error) from error
            raise
        finally:
            datamodule.teardown("validate")
        return saved
