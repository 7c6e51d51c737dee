"""Checks a run before it begins, on a copy of its networks that takes no memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Trainer

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.checkpoints import CheckpointInfo, weight_shapes
from lit_mbrl.app.trainer_options import monitors
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.data.buffers.disk import COPIES, check_disk
from lit_mbrl.training.stages import Stage, untrained
from lit_mbrl.utils.errors import did_you_mean, require

ENV_BYTES = 200_000  # of an environment, at least: classes, a generator of random numbers, a simulator's state


def networks(model: Algorithm, spec: Any) -> Algorithm:
    """A copy of the algorithm with all its networks, without memory for their weights."""
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        twin.configure(spec)
    return twin


def require_match(saved: CheckpointInfo, twin: Algorithm, stages: Sequence[Stage] = ()) -> None:
    """Raises `OptionError` if a checkpoint is another algorithm's, or one of networks of other sizes.

    What stages train that have not begun yet may have another size than before.
    """
    name = type(twin).__name__
    where = f"{saved.path} ({saved.algorithm} on {saved.environment})"
    require(saved.algorithm == name, "ckpt_path", where, f"a checkpoint of {name}")
    shapes = weight_shapes(twin.state_dict())
    to_come = untrained(twin, stages, saved.stage)
    for key in sorted((shapes.keys() | saved.shapes.keys()) - to_come):
        expected, found = shapes.get(key, "no such weight"), saved.shapes.get(key, "no such weight")
        require(expected == found, "ckpt_path", where, f"{key} to be {expected} as configured, not {found}")
    updates = len(list(twin.updates()))
    require(
        saved.optimizers == updates,
        "ckpt_path",
        where,
        f"a checkpoint with {updates} optimisers as configured, not {saved.optimizers}",
    )


def require_devices(saved: CheckpointInfo, devices: int) -> None:
    """Raises `OptionError` unless a run goes on with as many devices as it had."""
    require(
        saved.devices == devices,
        "trainer.devices",
        devices,
        f"{saved.devices} as in {saved.path}, which has a replay and environments for each",
    )


def check_run_disk(trainer: Trainer, data: Any, twin: Algorithm, run_folder: Path) -> None:
    """Raises `OptionError` if what a run is going to write does not fit where its folder is."""
    if not hasattr(data, "disk_bytes"):
        return
    checkpoint = trainer.checkpoint_callback
    every = checkpoint.every_epochs if isinstance(checkpoint, Checkpoint) else None
    needed = data.disk_bytes(every, trainer.world_size)
    if every is not None:
        copies = COPIES + len(twin.stages(data))  # one at the end of each
        needed["checkpoints"] = needed.get("checkpoints", 0) + copies * checkpoint_bytes(twin)
    check_disk(run_folder, needed)


def checkpoint_bytes(twin: Algorithm) -> int:
    """Bytes of the weights and of Adam's two moments in a checkpoint."""
    weights = [value for value in twin.state_dict().values() if isinstance(value, torch.Tensor)]
    moments = [parameter for update in twin.updates() for parameter in update.parameters()]
    return _bytes(weights) + 2 * _bytes(moments)


def _bytes(tensors: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def require_monitor(monitor: str, model: Algorithm, data: Any) -> None:
    """Raises `OptionError` about a metric that no evaluation of this run will have.

    Metrics of training (`train/...`) are left to the first evaluation, which knows what has been logged.
    """
    known = monitors(model, data)
    right = f"a metric of the evaluation: {', '.join(known)}{did_you_mean(monitor, known)}"
    require(monitor in known or monitor.startswith("train/"), "checkpoint.monitor", monitor, right)


def require_episodes(model: Algorithm, data: Any) -> None:
    """Raises `OptionError` if no episode, or not the whole warm-up, is as long as the sequences to learn from."""
    spec = data.spec
    limit, name = spec.max_episode_steps, spec.name
    if hasattr(data, "sequence_length"):
        # An episode has a frame more than steps.
        enough = limit is None or data.short_episodes == "pad" or data.sequence_length <= limit + 1
        expected = f"at most {(limit or 0) + 1}, the frames of an episode of {name}, or data.short_episodes=pad"
        require(enough, "data.sequence_length", data.sequence_length, expected)
        return
    wanted = model.sampling()
    if not wanted.sequence_batches:
        return
    length, option = wanted.sequence_length, wanted.option
    episode = f"at most {limit}, the steps of an episode of {name}"
    require(limit is None or length <= limit, option, length, episode)
    envs, capacity = data.env.num_envs, getattr(data, "capacity", None)
    few = f"at least {length * envs}, since {option} asks for {length} consecutive steps of an environment"
    require(capacity is None or length <= capacity // envs, "data.capacity", capacity, few)
    starts = getattr(data, "learning_starts", length * envs)
    warm_up = f"at most {starts // envs}, the steps of each environment in data.learning_starts"
    require(length <= starts // envs, option, length, warm_up)


def require_memory(twin: Algorithm, data: Any, options: Any) -> None:
    """Raises `OptionError` about sizes with which a run cannot fit into memory, whatever else it needs.

    Args:
        twin: the algorithm with its networks.
        data: the data module.
        options: those of the algorithm, by name.
    """
    free = psutil.virtual_memory().available
    parameters = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    name = next((name for name in ("hidden_sizes", "hidden", "units", "depth") if name in options), None)
    # Weights, gradients and the two moments of Adam.
    option, value = ("model", type(twin).__name__) if name is None else (f"model.{name}", options[name])
    _require(option, value, 4 * _bytes(parameters), free)
    widest = max((value.shape[0] for value in parameters if value.dim() == 2), default=0)
    rows = data.batch_size * getattr(data, "sequence_length", 1)
    frame = getattr(data, "frame_bytes", 0)
    _require("data.batch_size", data.batch_size, rows * (frame + 4 * widest), free)
    for option, envs in (("data.env.num_envs", data.env.num_envs), ("data.eval_episodes", data.eval_episodes)):
        _require(option, envs, envs * ENV_BYTES, free)


def _require(option: str, value: object, needed: int, free: int) -> None:
    require(
        needed <= free, option, value, f"a size that fits: it takes {_size(needed)} or more, {_size(free)} are free"
    )


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
