"""Config files that say only how they differ from others: `defaults: [common.yaml]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.files import is_file
from lit_mbrl.utils.yaml import read_yaml

KEY = "defaults"


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config file with everything that it takes over by `defaults`.

    `defaults` names further files, relative to the file's own folder. Of several the later ones win, and the file
    itself before all of them: mappings are merged entry by entry, other values, lists among them, replace each other.

    Raises:
        OptionError: if one of the files is missing, is no mapping, or takes over itself.
    """
    return _read(path, ())


def has_defaults(path: Path) -> bool:
    """Returns whether a config file takes over others."""
    content = read_yaml(path, "config")
    return isinstance(content, dict) and KEY in content


def merge(first: Any, second: Any) -> Any:
    """The entries of both, of which the second win."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return first | {key: merge(first[key], value) if key in first else value for key, value in second.items()}


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    content = read_yaml(path, "config")
    require(
        isinstance(content, dict) or (above and content is None),
        "config",
        path,
        "YAML with entries as model, data and trainer",
    )
    own = dict(content or {})
    names = own.pop(KEY, [])
    require(
        isinstance(names, list) and all(isinstance(name, str) for name in names),
        f"{KEY} of {path}",
        names,
        "a list of config files, as [common.yaml]",
    )
    merged: dict[str, Any] = {}
    for name in names:
        other = path.parent / name
        if not is_file(other):
            raise OptionError(f"{KEY} of {path}", name, "a config file beside it, but there is no such file")
        if other.resolve() in (path.resolve(), *above):
            raise OptionError(f"{KEY} of {path}", name, "another config file, but this one takes over itself")
        merged = merge(merged, _read(other, (*above, path.resolve())))
    return merge(merged, own)
