"""Options of Lightning's trainer that a run here has no use for, by the option that does what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.utils.errors import require

_LENGTH = "null: data.total_frames says how long a run is, trainer.max_epochs when it stops earlier"
_WHOLE = "null: an epoch is data.epoch_frames environment steps"
_CLIP = "null: --model.max_grad_norm clips the gradient of each update to a norm"
# Option -> whether a value is allowed, and what would be right.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gradient_clip_val": (lambda value: value is None, _CLIP),
    "gradient_clip_algorithm": (lambda value: value is None, _CLIP),
    "accumulate_grad_batches": (lambda value: value == 1, "1: data.batch_size says how large a batch is"),
    "min_steps": (lambda value: value is None, _LENGTH),
    "min_epochs": (lambda value: value is None, _LENGTH),
    "max_steps": (lambda value: value == -1, _LENGTH.replace("null", "-1")),
    "val_check_interval": (lambda value: value in (None, 1.0) and not isinstance(value, int), _WHOLE),
    "check_val_every_n_epoch": (lambda value: value is not None and value >= 1, "an integer >= 1: " + _WHOLE[6:]),
    "limit_train_batches": (lambda value: value in (None, 1.0) and not isinstance(value, int), _WHOLE),
    "limit_val_batches": (
        lambda value: value in (None, 0, 1.0) or isinstance(value, int),
        "null, or 0 for no evaluation: data.eval_episodes says how long it is",
    ),
    "limit_test_batches": (lambda value: value is None, "null: there is no test"),
    "limit_predict_batches": (lambda value: value is None, "null: there is no prediction"),
    "overfit_batches": (lambda value: value == 0, "0: batches are drawn from the replay"),
    "reload_dataloaders_every_n_epochs": (lambda value: value == 0, "0: an epoch's loader is its own anyway"),
}
# Callbacks of Lightning's that reach into a loop of another kind, and what does what they are for.
_CALLBACKS = {
    BatchSizeFinder: "data.batch_size",
    GradientAccumulationScheduler: "data.batch_size",
    LearningRateFinder: "the learning rates of model",
    OnExceptionCheckpoint: "checkpoint.every_epochs: what a failed run has learnt is in last.ckpt",
    StochasticWeightAveraging: "lit_mbrl.callbacks.SoftTargetUpdate",
}


def check_options(trainer: Any) -> None:
    """Raises `OptionError` for a trainer's option (the section `trainer`) that would be ignored, or break a run."""
    for option, (is_allowed, expected) in _RULES.items():
        value = trainer.get(option)
        require(is_allowed(value), f"trainer.{option}", value, expected)


def monitors(algorithm: Algorithm, data: Any) -> list[str]:
    """Names of the metrics that a callback can monitor: those of evaluations, and of training episodes."""
    env = data.env
    names = ["eval/return", "eval/return_std", "eval/episode_length", "train/return", "train/episode_length"]
    if len(env.tasks) > 1:
        names += [f"eval/return/{task.rpartition('/')[2]}" for task in env.tasks]
    if env.eval_kwargs is not None:
        names += ["eval/train_levels_return", "eval/train_levels_return_std"]
    for name in algorithm.also_evaluated:
        names += [f"eval/{name}_return", f"eval/{name}_return_std"]
    return names + [f"model/mse_{h + 1}" for h in range(getattr(algorithm, "model_horizon", 0))]


def check_callbacks(trainer: Trainer, algorithm: Algorithm, data: Any) -> None:
    """Raises `OptionError` for callbacks of Lightning's that cannot work here, or whose metric there will never be.

    A metric that comes later, as the return of training episodes that take longer than an epoch, is waited for.
    """
    known = monitors(algorithm, data)
    for callback in trainer.callbacks:
        for kind, instead in _CALLBACKS.items():
            require(not isinstance(callback, kind), "trainer.callbacks", kind.__name__, f"in its place {instead}")
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or callback.monitor is None:
            continue
        option, name = "trainer.callbacks.monitor", type(callback).__name__
        require(callback.monitor in known, option, callback.monitor, f"for {name} one of {', '.join(known)}")
        evaluations = trainer.limit_val_batches != 0
        require(evaluations, "trainer.limit_val_batches", 0, f"null, since {name} monitors {callback.monitor}")
        if isinstance(callback, EarlyStopping):
            callback.strict = False
