"""`@options`: a class's options are declared, and so its constructor, its checks and its help.

    @options
    class SAC(Algorithm):
        hidden_sizes: Sizes = (256, 256)
        \"\"\"Hidden layers of the actor and of each critic.\"\"\"
        gamma: ClosedUnitInterval = 0.99
        \"\"\"Discount.\"\"\"

        def __post_init__(self) -> None:
            super().__post_init__()
            ...  # rules between options, and what is made of them

`SAC(gamma=2)` raises `OptionError`, as `--model.gamma=2` does. A subclass has the options of its bases; one that it
declares again has another default or type, and as a `ClassVar` is no option any more. What a base without options has
as a constructor is called before.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_origin, get_type_hints, overload

from lit_mbrl.utils.errors import OptionError, UsageError
from lit_mbrl.utils.types import Mismatch, convert

T = TypeVar("T", bound=type)
_OWN = "_declared_options"  # of a class itself, not of its bases: name -> (type, field)
_GIVEN = "_given_options"  # of an object: name -> value


@overload
def options(cls: T) -> T: ...
@overload
def options(**settings: bool) -> Callable[[T], T]: ...


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def options(cls: Any = None, **settings: bool) -> Any:
    """Makes the annotated attributes of a class its options, keyword arguments of its constructor.

    Messages name an option behind the class's `section`, a `ClassVar` that subclasses inherit: `model`, `data.env`.

    Args:
        cls: the class.
        **settings: of `dataclasses.dataclass`, as `frozen`.
    """
    if cls is None:
        return functools.partial(options, **settings)
    if not hasattr(cls, _OWN):
        cls.__init_subclass__ = classmethod(_resolve_constructor)
    inherited = declared_options(cls)
    setattr(cls, _OWN, _declared(cls, inherited))
    declared = declared_options(cls)
    # All of them are the class's own to `dataclass`, which would take those of several bases in another order than
    # Python does; resolved, or jsonargparse would let any value pass under `from __future__ import annotations`; and
    # without `Annotated`, which it does not know.
    kinds = {name: kind for name, (kind, _) in declared.items()}
    kinds |= {name: ClassVar for name in inherited.keys() - declared.keys()}
    cls.__annotations__ = get_type_hints(type("Kinds", (), {"__annotations__": kinds}))
    for name, (_, default) in declared.items():
        setattr(cls, name, copy.copy(default))
    dataclass(kw_only=True, **({"eq": False, "repr": False} | settings))(cls)
    for name in declared:
        if name in vars(cls):
            delattr(cls, name)  # it would hide a network or a method of the same name
    cls.__init__ = _checked(cls)
    return cls


def declared_options(cls: type) -> dict[str, tuple[Any, Field]]:
    """Type and default of every option of a class, by name."""
    found: dict[str, tuple[Any, Field] | None] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base).get(_OWN, {})
    return {name: option for name, option in found.items() if option is not None}


def given_options(instance: Any) -> dict[str, Any]:
    """Options that an object was made with, by name; those that were left at their defaults are not among them."""
    return dict(vars(instance).get(_GIVEN, {}))


def take(instance: Any, name: str) -> Any:
    """Removes an option from an object, which has something else of that name, and returns it."""
    return vars(instance).pop(name)


def _declared(cls: type, inherited: dict[str, Any]) -> dict[str, tuple[Any, Field] | None]:
    """The class's own options; None for one of a base that is none here."""
    own: dict[str, tuple[Any, Field] | None] = {}
    for name, kind in inspect.get_annotations(cls, eval_str=True).items():
        default = vars(cls).get(name, MISSING)
        if get_origin(kind) is not ClassVar and kind is not ClassVar:
            own[name] = kind, default if isinstance(default, Field) else field(default=default)
        elif name in inherited:
            own[name] = None
    for name in inherited.keys() & vars(cls).keys() - own.keys():
        raise TypeError(f"{cls.__name__}.{name} is an option: it needs its type, or another name")
    return own


def _resolve_constructor(cls: type, **settings: Any) -> None:
    """Resolves the types of a constructor that a subclass writes by hand: jsonargparse takes the class's instead."""
    super(_root(cls), cls).__init_subclass__(**settings)
    if "__init__" in vars(cls):
        with contextlib.suppress(NameError):  # of a type that is imported for type checkers alone
            cls.__init__.__annotations__ = get_type_hints(cls.__init__)  # type: ignore[misc]


@functools.cache
def _require_declared(cls: type, root: type) -> None:
    """Raises `UsageError` if a subclass looks as if it declared an option, and has no `@options`."""
    for base in cls.__mro__[: cls.__mro__.index(root)]:
        for name, kind in vars(base).get("__annotations__", {}).items():
            if name in vars(base) and "ClassVar" not in str(kind):
                raise UsageError(
                    f"{base.__name__}.{name} has a type and a default: @options above the class makes an option of it, "
                    "ClassVar says that it is none"
                )


def _root(cls: type) -> type:
    """The first base that has options."""
    return next(base for base in reversed(cls.__mro__) if _OWN in vars(base))


def _checked(cls: type) -> Callable[..., None]:
    """The constructor that `dataclass` has made, behind the base's and the check of every value."""
    construct = cls.__init__
    kinds = {name: kind for name, (kind, _) in declared_options(cls).items()}
    positional = [each.name for each in cls.__dataclass_fields__.values() if not each.kw_only]  # type: ignore[attr-defined]
    root = _root(cls)

    @functools.wraps(construct)
    def __init__(self: Any, *values: Any, **given: Any) -> None:
        _require_declared(type(self), root)
        super(root, self).__init__()
        known = [*map(check, positional, values), *values[len(positional) :]]
        named = {name: check(name, value) for name, value in given.items()}
        vars(self)[_GIVEN] = dict(zip(positional, known, strict=False)) | named
        construct(self, *known, **named)

    def check(name: str, value: Any) -> Any:
        try:
            return convert(kinds[name], value) if name in kinds else value
        except Mismatch as mismatch:
            shown = "null" if value is None else value
            raise OptionError(f"{cls.section}.{name}", shown, str(mismatch)) from None  # type: ignore[attr-defined]

    return __init__
