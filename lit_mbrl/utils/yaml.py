"""YAML that users write and files hold: what is wrong with it is one line, before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lit_mbrl.utils.errors import OptionError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MANY_BYTES = 1_000_000
_MANY_NODES = 200_000
_DEEP = 64  # brackets and levels; more would take the parser's stack


def load_yaml(text: str, option: str, value: object) -> Any:
    """Reads a YAML document.

    Args:
        text: the document.
        option: what it is the value of, for the error.
        value: how it is named there.

    Raises:
        OptionError: if it is no YAML, has a key twice in one mapping, contains itself, or is too large with its
            aliases.
    """
    check_yaml(text, option, value)
    try:
        return yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise _not_yaml(error, option, value) from error


def check_yaml(text: str, option: str, value: object) -> None:
    """Raises `OptionError` as `load_yaml` does, and makes nothing of the document."""

    def fail(expected: str) -> OptionError:
        return OptionError(option, value, expected)

    if len(text) > _MANY_BYTES:
        raise fail(f"YAML of at most {_MANY_BYTES / 1e6:.0f} MB, not {len(text) / 1e6:.1f} MB")
    if _depth(text) > _DEEP:
        raise fail(f"YAML with at most {_DEEP} levels")
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError):
        try:
            yaml.compose(text, Loader=yaml.SafeLoader)  # which words it better
        except (yaml.YAMLError, ValueError, RecursionError) as worded:
            error = worded
        raise _not_yaml(error, option, value) from error
    if root is not None:
        _size(root, {}, set(), fail)


def read_yaml(path: Path, option: str) -> Any:
    """Reads a YAML file; see `load_yaml`.

    Raises:
        OptionError: also if the file cannot be read.
    """
    return load_yaml(read_text(path, option), option, path)


def read_text(path: Path, option: str) -> str:
    """The text of a file; raises `OptionError` if it cannot be read or is none."""
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise _not_yaml(error, option, path) from error
    except OSError as error:
        raise OptionError(option, path, f"a file that can be read ({error.strerror})") from error


def _size(node: Node, known: dict[int, int], above: set[int], fail: Any) -> int:
    """Number of nodes below one, with every alias written out."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise fail(f"YAML that ends, but what begins in line {node.start_mark.line + 1} contains itself")
    if len(above) >= _DEEP:
        raise fail(f"YAML with at most {_DEEP} levels")
    above.add(id(node))
    size = 1
    if isinstance(node, SequenceNode):
        size += sum(_size(item, known, above, fail) for item in node.value)
    elif isinstance(node, MappingNode):
        seen: dict[tuple[str, str], int] = {}
        for key, item in node.value:
            if isinstance(key, ScalarNode) and key.value != "<<":
                line = key.start_mark.line + 1
                if (key.tag, key.value) in seen:
                    first = seen[key.tag, key.value]
                    raise fail(f"YAML with each key once, but {key.value} is in lines {first} and {line}")
                seen[key.tag, key.value] = line
            size += _size(key, known, above, fail) + _size(item, known, above, fail)
    above.remove(id(node))
    if size > _MANY_NODES:
        raise fail(f"YAML with at most {_MANY_NODES:,} entries, aliases written out")
    known[id(node)] = size
    return size


def _depth(text: str) -> int:
    """An upper bound of how deep a document's brackets, dashes and keys nest."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    longest = 0
    for line in text.splitlines():
        stripped = line.lstrip(" ")
        dashes = len(stripped) - len(stripped.lstrip("-? "))
        longest = max(longest, (len(line) - len(stripped)) // 2 + dashes // 2 if stripped else 0)
    return max(deepest, longest)


def _not_yaml(error: BaseException, option: str, value: object) -> OptionError:
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return OptionError(option, value, f"YAML, but {problem}{where}")
