"""Interpolations of the configuration, as `${model.init_args.actor_lr}` or `${oc.env:SEED,0}`, option by option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationKeyError, OmegaConfBaseException

from lit_mbrl.utils.errors import OptionError, did_you_mean

_MARK = "${"
_CYCLE = "an interpolation that ends, but this one leads back to itself"


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration with every interpolation replaced by its value.

    Absolute names start at the configuration's root (`model`, `data`, ...), relative ones (`${.actor_lr}`) at the
    entry.

    Raises:
        OptionError: about the first option whose interpolation has no value.
    """
    try:
        root = OmegaConf.create(config, flags={"allow_objects": True})
    except GrammarParseError as error:
        path = str(getattr(error, "full_key", "")).split(".")
        raw = _at(config, path)
        raise OptionError(option_name(path), raw, f"${{name}} or ${{oc.env:NAME,default}} ({_first(error)})") from error
    found = {path: _value(root, config, path, raw) for path, raw in _leaves(config) if _MARK in raw}
    for path, value in found.items():
        parent = _at(config, path[:-1])
        parent[path[-1]] = value
    return config


def option_name(path: list[str] | tuple[Any, ...]) -> str:
    """An entry's name on the command line: `model.actor_lr` for `model.init_args.actor_lr`."""
    return ".".join(str(key) for key in path if key not in ("init_args", "dict_kwargs"))


def _value(root: DictConfig, config: dict[str, Any], path: tuple[Any, ...], raw: str) -> Any:
    option = option_name(path)
    try:
        node: Any = root
        for key in path:
            node = node[key]
        value = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node
    except InterpolationKeyError as error:
        name = re.search(r"Interpolation key '\.*([^']+)'", str(error))
        missing = name[1] if name else raw
        known = [".".join(map(str, other)) for other, _ in _leaves(config, every=True)]
        hint = did_you_mean(missing, known)
        raise OptionError(option, raw, f"the name of a config entry, but there is no {missing}{hint}") from error
    except RecursionError as error:
        raise OptionError(option, raw, _CYCLE) from error
    except OmegaConfBaseException as error:
        raise OptionError(option, raw, _explain(error)) from error
    return _read(value) if isinstance(value, str) and _is_variable(raw.strip()) else value


def _is_variable(raw: str) -> bool:
    """Returns whether a text is one environment variable and nothing else."""
    depth = 0
    for place, letter in enumerate(raw):
        depth += (letter == "{") - (letter == "}")
        if letter == "}" and depth == 0:
            return raw.startswith("${oc.env:") and place == len(raw) - 1
    return False


def _read(text: str) -> Any:
    """The value of an environment variable as a config file would have it: `7` is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # YAML takes 1e-3 for text and 2020-01-01 for a date.
    return value if value is None or isinstance(value, bool | int | float | list | dict) else _number(text)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _explain(error: OmegaConfBaseException) -> str:
    text = _first(error)
    if match := re.search(r"Environment variable '([^']*)' not found", text):
        name = match[1]
        return f"the environment variable {name} to be set, or a default for it, as ${{oc.env:{name},default}}"
    if "ecursive" in text:
        return _CYCLE
    return f"${{name}} or ${{oc.env:NAME,default}} ({text})"


def _first(error: BaseException) -> str:
    return " ".join(str(error).split("full_key:")[0].split())


def _leaves(tree: Any, path: tuple[Any, ...] = (), every: bool = False) -> Iterator[tuple[tuple[Any, ...], Any]]:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        if every or isinstance(value, str):
            yield (*path, key), value
        yield from _leaves(value, (*path, key), every)


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, TypeError):
            return "?"
    return tree
