"""Sections of the configuration that are made into objects, and what jsonargparse lets pass in them."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import typing
from collections.abc import Iterator
from typing import Any

import jsonargparse

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.app.interpolation import option_name
from lit_mbrl.data.base import EnvDataModule
from lit_mbrl.utils.errors import OptionError, UsageError, did_you_mean, require
from lit_mbrl.utils.options import declared_options
from lit_mbrl.utils.types import expected

_SECTIONS = ("model", "data", "trainer", "checkpoint", "progress")
_ENVIRONMENTS = {("data", "env", "kwargs"), ("data", "env", "eval_kwargs")}


def class_of(component: Any) -> Any:
    """The class that a section of the configuration names."""
    module, _, name = component.class_path.rpartition(".")
    return getattr(sys.modules[module], name)


def check_config(config: jsonargparse.Namespace) -> None:
    """Raises `OptionError` or `UsageError` about what the parser lets pass in the configuration of a command."""
    require_sections(config)
    require_components(config.model, config.data)
    for key in ("model", "data"):
        reject_unknown_fields(key, config[key])
        reject_nulls(key, class_of(config[key]), config[key].init_args)
    callbacks = config.trainer.callbacks
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, jsonargparse.Namespace):
            reject_nulls("trainer.callbacks", class_of(callback), callback.get("init_args"))
    require_finite(config)
    every, threads = config.trainer.log_every_n_steps, config.num_threads
    require(every is None or every >= 0, "trainer.log_every_n_steps", every, "an integer >= 0")
    require(threads is None or threads > 0, "num_threads", threads, "an integer > 0 or null")
    most = max(64, 4 * (os.cpu_count() or 1))  # of very many the interpreter dies
    require(threads is None or threads <= most, "num_threads", threads, f"at most {most} on this machine")


def require_sections(config: jsonargparse.Namespace) -> None:
    """Raises `OptionError` about a section that is no mapping: a file may say `checkpoint: null`."""
    for key in _SECTIONS:
        value = config[key]
        entries = isinstance(value, jsonargparse.Namespace)
        value = "null" if value is None else value
        require(entries, key, value, f"a mapping, or its entries as --{key}.<name>=<value>")


def require_components(model: Any, data: Any) -> None:
    """Raises `OptionError` unless the classes are an algorithm and a data module that can be run."""
    algorithm, module = class_of(model), class_of(data)
    whole = algorithm.updates is not Algorithm.updates and algorithm.build is not Algorithm.build
    require(whole, "model", model.class_path, "an algorithm, as `python -m lit_mbrl list` shows them")
    ours = issubclass(module, EnvDataModule) and module.collect is not EnvDataModule.collect
    right = "a data module that steps environments, as lit_mbrl.data.OffPolicy"
    require(ours, "data", data.class_path, right)


def require_finite(config: jsonargparse.Namespace) -> None:
    """Raises `OptionError` about a NaN or infinite number (`.nan`, `1e400`), except for what environments get."""
    for path, value in _numbers(config):
        option = tuple(key for key in path if key not in ("init_args", "dict_kwargs"))
        if option[:3] not in _ENVIRONMENTS:
            require(math.isfinite(value), option_name(path), value, "a finite number")


def _numbers(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, jsonargparse.Namespace | dict):
        for key, inner in (value if isinstance(value, dict) else vars(value)).items():
            yield from _numbers(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, path)


def reject_unknown_fields(key: str, component: Any) -> None:
    """Nested dataclasses: jsonargparse drops fields that they do not have instead of complaining."""
    if component is None:
        return
    cls = class_of(component)
    hints = typing.get_type_hints(cls.__init__)
    for option, value in vars(component.init_args).items():
        _reject_unknown(f"{key}.{option}", hints.get(option), value)


def _reject_unknown(key: str, hint: Any, value: Any) -> None:
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
    if not kinds or not isinstance(value, jsonargparse.Namespace | dict) or "class_path" in value:
        return  # of a class that is named, jsonargparse complains
    fields = value if isinstance(value, dict) else vars(value)
    # Of several kinds the one that is meant: with most of the names.
    kind = max(kinds, key=lambda kind: len({field.name for field in dataclasses.fields(kind)} & fields.keys()))
    known = [field.name for field in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind)
    for given, inner in fields.items():
        if given not in known:
            raise UsageError(f"--{key}.{given}: no such option{did_you_mean(given, known)}")
        _reject_unknown(f"{key}.{given}", hints[given], inner)


def reject_nulls(key: str, cls: type, options: Any) -> None:
    """Classes with constructors written by hand: jsonargparse takes null for any option, whatever its type."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            hints |= typing.get_type_hints(base.__init__)  # type: ignore[misc]
    declared = declared_options(cls)
    for option, value in vars(options).items() if options is not None else ():
        hint = hints.get(option, Any)
        if value is None and not (option in declared or hint is Any or type(None) in typing.get_args(hint)):
            raise OptionError(f"{key}.{option}", "null", expected(hint))
