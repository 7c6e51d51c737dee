"""Describes an object by its class and its options as plain values, and makes it again from them.

    describe(SAC(gamma=0.9)) == {"class_path": "lit_mbrl.algorithms.sac.SAC", "init_args": {"gamma": 0.9}}

A checkpoint holds such descriptions, so that it needs neither the config nor the script that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from lit_mbrl.utils.class_path import find
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import declared_options, given_options

Description = dict[str, Any]


def describe(made: Any) -> Description | None:
    """Returns the description of an object whose class has `@options`; None if an option's value has none."""
    try:
        return _plain(made)
    except TypeError:
        return None


def make_described(description: Mapping[str, Any], option: str) -> Any:
    """Makes the object again.

    Args:
        description: from `describe`.
        option: for messages: where it is from.

    Raises:
        OptionError: if there is no such class with options any more, or they have other types.
    """
    path = description["class_path"]
    kind = find(option, path)
    # Whatever else a path may lead to, a file shall not call it.
    require(isinstance(kind, type) and declared_options(kind) != {}, option, path, "the path of a class with options")
    return kind(**{name: _made(value, option) for name, value in description["init_args"].items()})


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Fraction):  # what a number has become
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if declared_options(type(value)):
        kind, given = type(value), given_options(value)
        # As they are now, with defaults, which another version may change.
        now = given | {name: vars(value)[name] for name in declared_options(kind) if name in vars(value)}
        arguments = {name: _plain(inner) for name, inner in now.items()}
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
    raise TypeError(f"{type(value).__name__} has no options")


def _made(value: Any, option: str) -> Any:
    if isinstance(value, list):
        return [_made(inner, option) for inner in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"class_path", "init_args"}:
        return make_described(value, option)
    return {key: _made(inner, option) for key, inner in value.items()}
