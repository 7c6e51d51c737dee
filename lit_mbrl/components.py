"""Sections of the configuration that are made into objects, and what jsonargparse lets pass in them."""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import Any

import jsonargparse

from lit_mbrl.errors import UserError, did_you_mean
from lit_mbrl.user_errors import OneLine, type_names


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
        if dataclasses.is_dataclass(hints.get(option)) and isinstance(value, jsonargparse.Namespace):
            known = [field.name for field in dataclasses.fields(hints[option])]
            for given in vars(value):
                if given not in known:
                    raise OneLine(f"--{key}.{option}.{given}: no such option{did_you_mean(given, known)}")


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
