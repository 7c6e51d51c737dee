"""Sections of the configuration that are made into objects, and what jsonargparse lets pass in them."""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import Any

import jsonargparse

from lit_mbrl.app.messages import type_names
from lit_mbrl.utils.errors import OneLine, UserError, did_you_mean


def class_of(component: Any) -> Any:
    """The class that a section of the configuration names."""
    module, _, name = component.class_path.rpartition(".")
    return getattr(sys.modules[module], name)


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
    if not kinds or not isinstance(value, jsonargparse.Namespace | dict):
        return
    known = [field.name for field in dataclasses.fields(kinds[0])]
    hints = typing.get_type_hints(kinds[0])
    for given, inner in (value if isinstance(value, dict) else vars(value)).items():
        if given not in known:
            raise OneLine(f"--{key}.{given}: no such option{did_you_mean(given, known)}")
        _reject_unknown(f"{key}.{given}", hints[given], inner)


def reject_nulls(key: str, cls: type, options: Any) -> None:
    """jsonargparse takes null for any option of a class, whatever its type."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            hints |= typing.get_type_hints(base.__init__)  # type: ignore[misc]
    for option, value in vars(options).items() if options is not None else ():
        hint = hints.get(option, Any)
        if value is None and hint is not Any and type(None) not in typing.get_args(hint):
            raise UserError(f"{key}.{option}", "null", type_names(str(hint)) if isinstance(hint, type) else "a value")
