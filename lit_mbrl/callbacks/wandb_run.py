"""Gives a Weights & Biases run what it should hold besides its metrics."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch.loggers
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.callbacks.checkpoint import Checkpoint
from lit_mbrl.utils.errors import OptionError
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeInt

PACKAGES = ("torch", "torchrl", "tensordict", "lightning", "gymnasium", "mujoco")
COLUMNS = ("env_steps", "return", "return_std", "length")
_ROOT = Path(__file__).resolve().parents[2]


@options
class WandbRun(Callback):
    """Records in the run of `lit_mbrl.app.loggers.WandbLogger` what is needed to understand it later, and to repeat it.

    | what | where in the run |
    |---|---|
    | the resolved configuration | its config (the logger's doing), and `config.yaml` among its files, to run again |
    | commit of this repository, and whether files differ from it | config `git` |
    | sizes and kind of the environment | config `environment` |
    | versions of `PACKAGES` | config `versions` |
    | every evaluation: environment step, return, its standard deviation, length | table `evaluation`, at the end |
    | an episode of every n-th evaluation | video `eval/video`, also in the run folder's `videos/` |
    | the best checkpoint, with replay and optimisers | artifact `checkpoint-<run id>`, at the end |

    "At the end" is also that of an interrupted or failed run; the checkpoint waits for a regular one. A resumed run
    goes on in the same W&B run, and its table has the earlier evaluations, too.
    """

    section: ClassVar[str] = "trainer.callbacks"

    upload_best: bool = False
    """Upload `checkpoints/best.ckpt`."""
    video_every: NonNegativeInt = 0
    """Evaluations between videos; 0: none. Needs the package `imageio[ffmpeg]`."""

    def __post_init__(self) -> None:
        self._evaluations: list[list[float]] = []
        self._run: Any = None
        # How W&B is talked to: by way of our logger, which a failure of W&B's does not get past.
        self._attempt: Callable[..., Any] = lambda function, *args: function(*args)

    # ------------------------------------------------------------------ hooks
    def check(self, trainer: Trainer, datamodule: Any) -> None:
        """Raises `OptionError` if something that is asked for cannot be had; is called before a run begins."""
        if trainer.fast_dev_run:
            return
        _logger(trainer)
        if self.upload_best and _checkpoint(trainer) is None:
            raise OptionError("trainer.enable_checkpointing", False, "true, since WandbRun.upload_best is")
        if self.video_every:
            self._check_video(datamodule)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records what is known now."""
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        logger = _logger(trainer)
        self._run = logger.experiment
        self._attempt = getattr(logger, "attempt", self._attempt)
        known = {
            "git": git_state(_ROOT),
            "environment": _plain(trainer.datamodule.spec),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
        # A resumed run may be resumed at another commit; the last one is the one to know.
        self._attempt(lambda: self._run.config.update(known, allow_val_change=True))
        config = Path(trainer.default_root_dir, "config.yaml")
        if config.is_file():
            self._attempt(lambda: self._run.save(str(config), base_path=str(config.parents[1]), policy="now"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes an evaluation, and films an episode when it is time to."""
        if trainer.state.fn != "fit" or trainer.fast_dev_run:
            return
        metrics = trainer.callback_metrics
        names = ("eval/return", "eval/return_std", "eval/episode_length")
        row = [float(metrics.get(name, math.nan)) for name in names]
        self._evaluations.append([float(pl_module.env_steps), *row])
        if self._run is not None and self.video_every and len(self._evaluations) % self.video_every == 0:
            self._log_video(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sends the table and, if asked for, the best checkpoint."""
        self._attempt(self._log_table)
        if self._run is not None and self.upload_best:
            self._attempt(self._upload, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Sends the table of what there was."""
        self._attempt(self._log_table)

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far."""
        return {"evaluations": [list(row) for row in self._evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the table of the run that is resumed."""
        self._evaluations = [list(row) for row in state_dict["evaluations"]]

    # ------------------------------------------------------------------ parts
    def _log_table(self) -> None:
        if self._run is None or not self._evaluations:
            return
        import wandb

        rows = [[int(steps), *values] for steps, *values in self._evaluations]
        self._run.log({"evaluation": wandb.Table(columns=list(COLUMNS), data=rows), "env_steps": rows[-1][0]})

    def _upload(self, trainer: Trainer) -> None:
        import wandb

        checkpoint = _checkpoint(trainer)
        assert checkpoint is not None  # `check` has looked
        path = Path(trainer.default_root_dir, checkpoint.folder, "best.ckpt")
        if not path.is_file():  # no evaluation took place
            return
        metadata = {checkpoint.monitor: checkpoint.best}
        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata=metadata)
        # The file is not written again, so W&B needs no copy of its own: with the replay it may have gigabytes.
        artifact.add_file(str(path), name="best.ckpt", policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact, aliases=["best"])

    def _check_video(self, data: Any) -> None:
        option, value = "trainer.callbacks.video_every", self.video_every
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise OptionError(option, value, "its packages: pip install 'lit-mbrl[video]'") from error
        if not hasattr(data, "check_video"):
            raise OptionError(option, value, f"0, since {type(data).__name__} cannot film its environment")
        try:
            data.check_video()
        except RuntimeError as error:
            raise OptionError(option, value, f"0, since {data.spec.name} cannot be rendered ({error})") from error

    def _log_video(self, trainer: Trainer, pl_module: LightningModule) -> None:
        import imageio
        import wandb

        images, rate = trainer.datamodule.record_video()
        path = Path(trainer.default_root_dir, "videos", f"{pl_module.env_steps}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Blocks of 2: H.264 wants even sizes, and imageio's own 16 would scale most images.
        imageio.mimwrite(path, list(images), fps=rate, macro_block_size=2)
        steps = pl_module.env_steps
        self._attempt(lambda: self._run.log({"eval/video": wandb.Video(str(path), format="mp4"), "env_steps": steps}))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository whose root is `folder`, and whether files differ from it; None if it is none's root."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or one without a commit
        return None


def _logger(trainer: Trainer) -> lightning.pytorch.loggers.WandbLogger:
    for logger in trainer.loggers:
        if isinstance(logger, lightning.pytorch.loggers.WandbLogger):
            return logger
    names = [type(logger).__name__ for logger in trainer.loggers]
    raise OptionError(
        "trainer.logger",
        names,
        "a list with lit_mbrl.app.loggers.WandbLogger, where lit_mbrl.callbacks.WandbRun records",
    )


def _checkpoint(trainer: Trainer) -> Checkpoint | None:
    return next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoint)), None)


def _plain(spec: Any) -> dict[str, Any]:
    """The fields of an `envs.Spec` that are values: those that it is shown with, not rules and remarks."""
    values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.repr}
    return values | {"parts": {name: [part.start, part.stop] for name, part in spec.parts.items()}}
