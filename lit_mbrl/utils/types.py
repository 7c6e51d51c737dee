"""Types of options: those of Python, and restricted ones, which say what would be right.

`convert` is what a constructor does with a value, `expected` how a message names a type. Numbers are finite, and true
is no number.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

FINITE = "a finite number"
_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string", NoneType: "null"}
_FLAGS = ("true", "false")


@dataclass(frozen=True)
class Rule:
    """Restricts a type: `Annotated[int, Rule("an even integer", lambda value: value % 2 == 0)]`.

    Args:
        expected: what would be right.
        holds: whether a value is.
    """

    expected: str
    holds: Callable[[Any], bool]


PositiveInt = Annotated[int, Rule("an integer > 0", lambda value: value > 0)]
NonNegativeInt = Annotated[int, Rule("an integer >= 0", lambda value: value >= 0)]
PositiveFloat = Annotated[float, Rule("a number > 0", lambda value: value > 0)]
NonNegativeFloat = Annotated[float, Rule("a number >= 0", lambda value: value >= 0)]
ClosedUnitInterval = Annotated[float, Rule("a number between 0 and 1", lambda value: 0 <= value <= 1)]
HalfOpenUnitInterval = Annotated[float, Rule("a number >= 0 and < 1", lambda value: 0 <= value < 1)]
OpenUnitInterval = Annotated[float, Rule("a number > 0 and < 1", lambda value: 0 < value < 1)]
# Of hidden layers; none is a linear map.
Sizes = Annotated[
    tuple[int, ...], Rule("positive layer sizes, as [256,256]", lambda sizes: all(size > 0 for size in sizes))
]


class Mismatch(ValueError):
    """A value is not what a type asks for; the text says what would be right."""


def convert(kind: Any, value: Any) -> Any:
    """The value as an option of this type has it: the same, but for lists that become tuples.

    A class with `of_name` makes its objects of strings.

    Raises:
        Mismatch: if it is none.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        rules = [rule for rule in arguments[1:] if isinstance(rule, Rule)]
        try:
            value = convert(arguments[0], value)
        except Mismatch as mismatch:
            raise Mismatch(FINITE if str(mismatch) == FINITE else expected(kind)) from mismatch
        for rule in rules:
            if not rule.holds(value):
                raise Mismatch(rule.expected)
        return value
    if origin in (Union, UnionType):
        return _convert_union(kind, arguments, value)
    if origin is Literal:
        right = any(type(value) is type(each) and value == each for each in arguments)
    elif origin in (list, tuple):
        return _convert_sequence(kind, origin, arguments, value)
    elif kind is float:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if right and not math.isfinite(value):
            raise Mismatch(FINITE)
    elif kind is int:
        right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    elif isinstance(value, str) and hasattr(kind, "of_name"):
        return kind.of_name(value)
    elif origin is dict and isinstance(value, Mapping):
        return {convert(arguments[0], key): convert(arguments[1], entry) for key, entry in value.items()}
    else:
        right = kind is Any or isinstance(value, origin or kind)
    if not right:
        raise Mismatch(expected(kind))
    return value


def _convert_union(kind: Any, members: Sequence[Any], value: Any) -> Any:
    for member in members:
        try:
            return convert(member, value)
        except Mismatch as mismatch:
            if str(mismatch) == FINITE:
                raise
    raise Mismatch(expected(kind))


def _convert_sequence(kind: Any, origin: type, members: Sequence[Any], value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise Mismatch(expected(kind))
    if origin is list or members[-1] is Ellipsis:
        members = members[:1] * len(value)
    if len(members) != len(value):
        raise Mismatch(expected(kind))
    try:
        return origin(convert(member, entry) for member, entry in zip(members, value, strict=True))
    except Mismatch as mismatch:
        raise Mismatch(FINITE if str(mismatch) == FINITE else expected(kind)) from mismatch


def expected(kind: Any) -> str:
    """Describes the expected value, for messages about one that is not of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        rules = [argument.expected for argument in arguments[1:] if isinstance(argument, Rule)]
        return rules[-1] if rules else expected(arguments[0])
    if origin in (Union, UnionType):
        names = [name for argument in arguments for name in (_FLAGS if argument is bool else (expected(argument),))]
    elif origin is Literal:
        names = [str(argument) for argument in arguments]
    elif origin is dict:
        return "a mapping"
    elif origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list ({expected(arguments[0])} each)"
    elif origin is tuple:
        return f"[{', '.join(expected(argument) for argument in arguments)}]"
    else:
        return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))
    return ", ".join(names[:-1]) + " or " + names[-1] if len(names) > 1 else names[0]
