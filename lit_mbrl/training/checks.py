"""Checks that an algorithm fits its environment, its device and its callbacks: one line if not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lit_mbrl.utils.errors import OptionError, require


def check_environment(algorithm: Any, spec: Any) -> None:
    """Raises `OptionError` if the algorithm cannot act in such an environment (`envs.Spec`)."""
    name = type(algorithm).__name__
    if algorithm.continuous_actions and spec.discrete:
        raise OptionError("data.env.name", spec.name, f"an environment with continuous actions, which {name} needs")
    if algorithm.pixels is not None and algorithm.pixels != spec.pixels:
        needed = "images as its observations" if algorithm.pixels else "a vector as its observation"
        raise OptionError("data.env.name", spec.name, f"an environment with {needed}, which {name} needs")
    if spec.pixels and algorithm.normalize_observations:
        raise OptionError("model.normalize_observations", True, f"false: {spec.name} has images, which need none")


def spec_of_run(algorithm: Any) -> Any:
    """Returns the environment's `envs.Spec`, of a trainer's data module.

    Raises:
        OptionError: if there is no data module, if the algorithm cannot act there, or if networks that it has already
            are for other observations or actions.
    """
    data = algorithm.trainer.datamodule
    if data is None:
        raise OptionError("data", None, "a data module, as lit_mbrl.data.OffPolicy: trainer.fit(algorithm, data)")
    spec, own = data.spec, algorithm.spec
    algorithm.check(spec)
    if own is not None:
        kinds = [(each.observation_shape, each.action_dim, each.discrete) for each in (own, spec)]
        alike = f"an environment with the observations and actions of {own.name}, which the networks are for"
        require(kinds[0] == kinds[1], "data.env.name", spec.name, alike)
    return spec


def check_device(algorithm: Any, device: torch.device) -> None:
    """Raises `OptionError` if the algorithm cannot be trained there as it is configured."""
    cpu = f"cpu with {type(algorithm).__name__}, which takes small steps there, one after the other"
    require(not algorithm.cpu_only or device.type == "cpu", "trainer.accelerator", device.type, cpu)
    require(
        algorithm.compile_option != "cudagraphs" or device.type == "cuda",
        "model.compile",
        algorithm.compile_option,
        "true or false on a CPU: CUDA graphs need a GPU",
    )


def check_precision(algorithm: Any, plugin: Any) -> None:
    """Raises `OptionError` if steps of the algorithm, built, cannot be taken in the trainer's precision."""
    searching = [update.name for update in algorithm.update_list if update.searches]
    require(
        getattr(plugin, "scaler", None) is None or not searching,
        "trainer.precision",
        "16-mixed",
        f"32-true or bf16-mixed: {type(algorithm).__name__}'s {', '.join(searching)} tries several steps, whose losses "
        "must not be scaled",
    )


def check_targets(algorithm: Any, callbacks: Sequence[Any], given: Any) -> None:
    """Raises `OptionError` if the algorithm, built, has target networks that no callback moves.

    A default would be no kindness: how fast targets follow is a number of the experiment, and papers differ in it.

    Args:
        callbacks: of the trainer; one that moves targets says so by its class's `moves_targets`.
        given: what the message shows of them.
    """
    require(
        not any(True for _ in algorithm.targets())
        or any(getattr(callback, "moves_targets", False) for callback in callbacks),
        "trainer.callbacks",
        given,
        f"a list with lit_mbrl.callbacks.SoftTargetUpdate, since {type(algorithm).__name__} has target networks",
    )
