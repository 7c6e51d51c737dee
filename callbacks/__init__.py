"""Callbacks of the application. In a config file: `class_path: callbacks.SoftTargetUpdate`."""

from callbacks.checkpoint import Checkpoint
from callbacks.entropy_annealing import EntropyAnnealing
from callbacks.graceful_stop import Aborted, GracefulStop, Interrupted
from callbacks.open_loop_predictions import OpenLoopPredictions
from callbacks.progress import ProgressBar, duration
from callbacks.soft_target_update import SoftTargetUpdate
from callbacks.trajectory_predictions import TrajectoryPredictions
from callbacks.wandb_run import WandbRun

__all__ = [
    "Aborted",
    "Checkpoint",
    "EntropyAnnealing",
    "GracefulStop",
    "Interrupted",
    "OpenLoopPredictions",
    "ProgressBar",
    "SoftTargetUpdate",
    "TrajectoryPredictions",
    "WandbRun",
    "duration",
]
