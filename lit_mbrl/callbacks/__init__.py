"""Callbacks of the application. In a config file: `class_path: lit_mbrl.callbacks.SoftTargetUpdate`."""

from lit_mbrl.callbacks.checkpoint import Checkpoint
from lit_mbrl.callbacks.cost_predictions import CostPredictions
from lit_mbrl.callbacks.entropy_annealing import EntropyAnnealing
from lit_mbrl.callbacks.graceful_stop import Aborted, GracefulStop, Interrupted
from lit_mbrl.callbacks.imagined_rollouts import ImaginedRollouts
from lit_mbrl.callbacks.open_loop_predictions import OpenLoopPredictions
from lit_mbrl.callbacks.progress import ProgressBar, duration
from lit_mbrl.callbacks.soft_target_update import SoftTargetUpdate
from lit_mbrl.callbacks.trajectory_predictions import TrajectoryPredictions
from lit_mbrl.callbacks.wandb_run import WandbRun

__all__ = [
    "Aborted",
    "Checkpoint",
    "CostPredictions",
    "EntropyAnnealing",
    "GracefulStop",
    "ImaginedRollouts",
    "Interrupted",
    "OpenLoopPredictions",
    "ProgressBar",
    "SoftTargetUpdate",
    "TrajectoryPredictions",
    "WandbRun",
    "duration",
]
