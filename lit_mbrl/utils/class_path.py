"""Makes an object of somebody else's class from its dotted path, as a configuration names it."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from lit_mbrl.utils.errors import OptionError

T = TypeVar("T")


def make(option: str, entry: Any, kind: type[T]) -> T:
    """Makes what a configuration describes.

    Args:
        option: its name, for messages.
        entry: the path of a class or function, `package.module.Name`; or `{class_path: ..., init_args: {...}}`, whose
            arguments may have the same form.
        kind: what it has to be.

    Raises:
        OptionError: if the path leads nowhere, the arguments do not fit, or it is something else.
    """
    made = _make(option, entry)
    if not isinstance(made, kind):
        raise OptionError(option, entry, f"the path of a {kind.__module__.partition('.')[0]} {kind.__name__}")
    return made


def find(option: str, path: str) -> Any:
    """Returns the class or function at a dotted path.

    Raises:
        OptionError: if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(option, path, f"the path of a class or function, package.module.Name ({error})") from error


def _make(option: str, entry: Any) -> Any:
    if isinstance(entry, dict) and "class_path" in entry and set(entry) <= {"class_path", "init_args"}:
        path, arguments = entry["class_path"], dict(entry.get("init_args") or {})
    else:
        path, arguments = entry, {}
    if not isinstance(path, str):
        raise OptionError(option, entry, "package.module.Name, or {class_path: package.module.Name, init_args: {...}}")
    for name, value in arguments.items():
        if isinstance(value, dict) and "class_path" in value:
            arguments[name] = _make(f"{option}.{name}", value)
    try:
        return find(option, path)(**arguments)
    except OptionError:
        raise
    except Exception as error:  # whatever somebody else's constructor raises
        reason = " ".join(str(error).split())
        raise OptionError(option, entry, f"arguments that {path} takes ({type(error).__name__}: {reason})") from error
