"""Makes an algorithm from a checkpoint alone, without a trainer: its options, its networks, its weights.

A checkpoint's entry `agent` describes the algorithm and its environment (`utils.description`), so that it does not
matter whether the command line wrote it or a script.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lit_mbrl.utils.class_path import find
from lit_mbrl.utils.description import make_described
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.trust import only_installed

_SPEC_OF = "lit_mbrl.envs.describe"  # by its name: algorithms know no environments


def read_agent(path: Path, option: str = "ckpt_path") -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint: its entries, and what it says of its agent.

    Args:
        path: the file.
        option: what names it, for messages.

    Raises:
        OptionError: if it is no such checkpoint.
    """
    folder = "a file, not a folder (lit_mbrl.load takes a run folder)"
    require(not os.path.isdir(path), option, path, folder)
    require(os.path.isfile(path), option, path, "a checkpoint, but there is no such file")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # What torch.load raises depends on which of the file's bytes are wrong.
    except Exception as error:
        expected = f"a checkpoint that can be read ({type(error).__name__})"
        raise OptionError(option, path, expected) from error
    known = isinstance(content, dict) and isinstance(content.get("agent"), dict)
    require(known, option, path, "a checkpoint of lit_mbrl")
    about = content["agent"]
    own = "a checkpoint whose algorithm's options are plain values; make the algorithm, and load its state_dict"
    require(about["model"] is not None and about["env"] is not None, option, path, own)
    return content, about


def load_frozen(path: str | Path, option: str, spec: Any) -> Any:
    """Makes the algorithm of a checkpoint for an environment that is there already; it is not trained any more.

    Args:
        path: the file.
        option: what names it, for messages.
        spec: the environment (`envs.Spec`).

    Raises:
        OptionError: if it is no such checkpoint, or one of an agent of other observations or actions.
        UsageError: if it names a module that is neither ours nor installed.
    """
    path = Path(path)
    content, about = read_agent(path, option)
    # Its first weights, which are thrown away, shall not move the run's random numbers.
    with torch.random.fork_rng(devices=[]):
        with only_installed(path):
            algorithm = make_described(about["model"], option)
        name = type(algorithm).__name__
        other = f"the checkpoint of an agent with the observations and actions of {spec.name}"
        try:
            algorithm.check(spec)
        except OptionError as error:
            raise OptionError(option, path, f"{other}, not {name}'s") from error
        algorithm.configure(spec)
    algorithm.loaded_clocks = tuple(about["clocks"])
    algorithm.on_load_checkpoint(content)
    try:
        algorithm.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise OptionError(option, path, f"{other}, not {name}'s, whose networks have other sizes") from error
    return algorithm.requires_grad_(False).eval()


def load_agent(
    path: str | Path, kind: type, map_location: Any, trust: bool, options: dict[str, Any]
) -> tuple[Any, Any]:
    """Makes the algorithm of a checkpoint, and the configuration of its environment (`envs.EnvConfig`).

    Args:
        path: the file.
        kind: what it has to be, a class of algorithms.
        map_location: the device that its weights go to; None: the CPU.
        trust: whether it may name modules that are neither ours nor installed.
        options: in the place of those that it was trained with.

    Raises:
        OptionError: if it is no such checkpoint.
        UsageError: if it names such a module without `trust`.
    """
    path = Path(path)
    content, about = read_agent(path)
    description = about["model"] | {"init_args": about["model"]["init_args"] | options}
    with nullcontext() if trust else only_installed(path):
        algorithm, env = (make_described(part, "ckpt_path") for part in (description, about["env"]))
        right = f"a checkpoint of {kind.__name__}, not of {type(algorithm).__name__}"
        require(isinstance(algorithm, kind), "ckpt_path", path, right)
        algorithm.configure(find("ckpt_path", _SPEC_OF)(env))
    algorithm.loaded_clocks = tuple(about["clocks"])
    algorithm.on_load_checkpoint(content)
    algorithm.load_state_dict(content["state_dict"])
    return algorithm.to(map_location or "cpu"), env
