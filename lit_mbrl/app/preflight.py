"""What is known of a run before it begins, from a copy of its networks that takes no memory."""

from __future__ import annotations

import copy
from typing import Any

import torch

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.checkpoints import SavedRun, weight_shapes
from lit_mbrl.app.trainer_options import monitors
from lit_mbrl.utils.errors import did_you_mean, require


def networks(model: Algorithm, spec: Any) -> Algorithm:
    """A copy of the algorithm with all its networks, without memory for their weights."""
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        twin.build_for(spec)
    return twin


def require_match(saved: SavedRun, twin: Algorithm) -> None:
    """Raises `UserError` if a checkpoint is another algorithm's, or one of networks of other sizes."""
    name = type(twin).__name__
    where = f"{saved.path} ({saved.algorithm} on {saved.environment})"
    require(saved.algorithm == name, "ckpt_path", where, f"a checkpoint of {name}")
    shapes = weight_shapes(twin.state_dict())
    for key in sorted(shapes.keys() | saved.shapes.keys()):
        expected, found = shapes.get(key, "no such weight"), saved.shapes.get(key, "no such weight")
        require(expected == found, "ckpt_path", where, f"{key} to be {expected} as configured, not {found}")
    updates = len(list(twin.updates()))
    require(
        saved.optimizers == updates,
        "ckpt_path",
        where,
        f"a checkpoint with {updates} optimisers as configured, not {saved.optimizers}",
    )


def require_devices(saved: SavedRun, devices: int) -> None:
    """Raises `UserError` unless a run goes on with as many devices as it had."""
    require(
        saved.devices == devices,
        "trainer.devices",
        devices,
        f"{saved.devices} as in {saved.path}, which has a replay and environments for each",
    )


def checkpoint_bytes(twin: Algorithm) -> int:
    """Bytes of the weights and of Adam's two moments in a checkpoint."""
    weights = [value for value in twin.state_dict().values() if isinstance(value, torch.Tensor)]
    moments = [parameter for update in twin.updates() for parameter in update.parameters()]
    return _bytes(weights) + 2 * _bytes(moments)


def _bytes(tensors: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def require_monitor(monitor: str, model: Algorithm, data: Any) -> None:
    """Raises `UserError` about a metric that no evaluation of this run will have.

    Metrics of training (`train/...`) are left to the first evaluation, which knows what has been logged.
    """
    known = monitors(model, data)
    right = f"a metric of the evaluation: {', '.join(known)}{did_you_mean(monitor, known)}"
    require(monitor in known or monitor.startswith("train/"), "checkpoint.monitor", monitor, right)
