"""Weights of another run as the start of a new one: `fit --init_from model.ckpt --init_parts=[actor,critic]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.checkpoints import CheckpointInfo, followed, read_checkpoint, weight_shapes
from lit_mbrl.utils.errors import OptionError, did_you_mean, require


class InitialWeights(Callback):
    """Copies a checkpoint's weights before the first step; optimisers, clocks, replay and random numbers start anew.

    Args:
        path: the checkpoint.
        names: of the entries of `state_dict` to copy.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, list(names)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies them."""
        states = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        own = pl_module.state_dict()
        with torch.no_grad():
            for name in self.names:
                own[name].copy_(states[name])


def initial_weights(path: Path, parts: Sequence[str] | None, twin: Algorithm) -> tuple[InitialWeights, str]:
    """The callback, and in words what it copies.

    Args:
        path: the checkpoint.
        parts: names of networks and other parts (`actor`, `critic`, `normalizer`); None: all that the algorithm has.
        twin: the algorithm with its networks.

    Raises:
        OptionError: if the checkpoint lacks one of the parts, or has one of another size.
    """
    try:
        saved = read_checkpoint(followed(path))
    except OptionError as error:
        raise OptionError("init_from", path, error.expected) from error
    shapes = {name: shape for name, shape in weight_shapes(twin.state_dict()).items() if _is_learnt(name, twin)}
    known = sorted({name.partition(".")[0] for name in shapes})
    for part in parts or ():
        hint = did_you_mean(part, known)
        require(part in known, "init_parts", part, f"parts of {type(twin).__name__}: {', '.join(known)}{hint}")
    chosen = known if parts is None else list(dict.fromkeys(parts))
    require(bool(chosen), "init_parts", parts, f"parts of {type(twin).__name__}: {', '.join(known)}")
    names = [name for name in shapes if name.partition(".")[0] in chosen]
    for name in names:
        found = saved.shapes.get(name)
        if found == shapes[name]:
            continue
        there = "which this checkpoint does not have" if found is None else f"{found} in the checkpoint"
        fits = {other.partition(".")[0] for other in names if saved.shapes.get(other) == shapes[other]}
        misfits = {other.partition(".")[0] for other in names if saved.shapes.get(other) != shapes[other]}
        others = [other for other in chosen if other in fits - misfits]
        instead = f": --init_parts=[{','.join(others)}] starts without" if others else ""
        raise OptionError("init_from", saved.path, f"weights for {name} {shapes[name]}, {there}{instead}")
    return InitialWeights(saved.path, names), describe(saved, chosen)


def describe(saved: CheckpointInfo, chosen: Sequence[str]) -> str:
    """One line about what a run starts from."""
    origin = f"{saved.algorithm} on {saved.environment}, {saved.env_steps:,} env steps"
    return f"{', '.join(chosen)} of {saved.path} ({origin})"


def _is_learnt(name: str, twin: Algorithm) -> bool:
    """Returns whether an entry is a result; others are options (`target_entropy`) or the noise of running episodes."""
    options = {name for name, _ in twin.named_buffers(recurse=False)}
    return not name.endswith("_extra_state") and name not in options
