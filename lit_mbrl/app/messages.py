"""One line for what a user mistyped, from the page that jsonargparse, OmegaConf or Lightning has to say about it.

Exceptions are read from the outermost to the innermost cause: on the way the names of the options add up
(`model`, then `env.num_envs`), and the innermost says what was wrong.
"""

from __future__ import annotations

import importlib
import re
import sys
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from jsonargparse import ArgumentParser
from omegaconf.errors import InterpolationKeyError

from lit_mbrl.app.overview import COMMANDS
from lit_mbrl.utils.errors import OptionError, did_you_mean
from lit_mbrl.utils.options import declared_options
from lit_mbrl.utils.types import expected as expected_of

_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a string", "NoneType": "null"}
# Where an option's short class names come from.
_HOMES = {"model": "lit_mbrl.algorithms", "data": "lit_mbrl.data", "trainer.callbacks": "lit_mbrl.callbacks"}


class ParseError(Exception):
    """The command line or a config file cannot be read; the cause says why."""


def causes(error: BaseException) -> list[BaseException]:
    """The exception and what caused it, outermost first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def user_error_in(error: BaseException) -> OptionError | None:
    """The `OptionError` that others have wrapped, if there is one."""
    return next((cause for cause in causes(error) if isinstance(cause, OptionError)), None)


def explain_instantiation(error: BaseException) -> str | None:
    """One line if an object could not be made because of a `OptionError` or a missing package, otherwise None.

    jsonargparse tries every type that an option may have; then only the text, and not the cause, has all the reasons.
    """
    if (wrapped := user_error_in(error)) is not None:
        return str(wrapped)
    text = str(error)
    if match := re.search(r"^\s*(?:- )?--([\w.]+=.*: expected .*)$", text, re.MULTILINE):
        return f"--{match[1]}"
    if match := re.search(r"Problem with given class_path '([^']+)':\s+(.*(?:pip install|No module named).*)", text):
        return f"{match[1]}: a package is missing: {_flat(match[2])}"
    return None


def explain(error: BaseException, argv: Sequence[str], options: Iterable[str] = ()) -> str:
    """One line about a `ParseError`, naming the option, its value and what would be right.

    Args:
        error: what was raised while parsing.
        argv: the command line.
        options: all option strings of the subcommand, to find the one that was meant.
    """
    if (wrapped := user_error_in(error)) is not None:
        return str(wrapped)
    chain = causes(error)
    leaf = str(chain[-1])
    text = str(chain[0])
    key = _option(chain)
    if isinstance(chain[-1], InterpolationKeyError):
        return _explain_interpolation(chain)
    if match := re.match(r"unrecognized arguments: (.*)", text):
        return _unknown(match[1].split()[0], options)
    if match := re.search(r"Subcommand '\w+' does not accept option '([^']+)'", leaf):
        return _unknown("--" + match[1].split(".init_args")[0].split(".dict_kwargs")[0], options)
    if match := re.match(r"argument (\S+): expected one argument", leaf):
        given = next((word for word in argv if word.startswith(match[1]) and "=" not in word), match[1])
        return f"{given}: expected a value"
    if match := re.search(r"Option '([^']+)' is not accepted", leaf):
        return _unknown_parameter(key, *_refused(match[1], text))
    if re.match(r"the following arguments are required: (fit|validate)\.model", text):
        return "--config: expected a config file, as conf/sac_svg.yaml (`python -m lit_mbrl list` shows them)"
    if re.search(r"invalid choice|expected \"subcommand\"", text):
        word = next((word for word in argv if not word.startswith("-")), "")
        return f"{word or 'no command'}: expected one of {', '.join(COMMANDS)}{did_you_mean(word, COMMANDS)}"
    if match := re.search(r"the following arguments are required: (\w+)", text):
        return f"--{key}.{match[1]}: expected a value"
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return _unknown_parameter(key, f"{match[1]}.{match[2]}", text)
    if match := re.search(r'Unable to load config "(.*)"', leaf):
        return f"--{key}={match[1]}: expected a mapping, or its entries as --{key}.<name>=<value>"
    if match := re.search(r"unrecognized arguments: --([\w.]+)", text):
        return _unknown_parameter(key, match[1], text)
    if (line := _explain_class(key, chain)) is not None:
        return line
    if (line := _explain_type(key, chain)) is not None:
        return line
    return f"--{key}: {_flat(leaf)}" if key else _flat(leaf)


def explain_trainer(error: BaseException, trainer: dict[str, Any]) -> str:
    """One line about what Lightning's Trainer finds wrong with its arguments."""
    text = _flat(str(error))
    quoted = [name for name in trainer if re.search(rf"\b{name}=|`{name}`", text)]
    # "No supported gpu backend found!" names the value only.
    valued = [name for name, value in trainer.items() if isinstance(value, str) and re.search(rf"\b{value}\b", text)]
    mentioned = [name for name in trainer if re.search(rf"\b{name}\b", text)]
    option = next(iter(quoted + valued + mentioned), None)
    return f"--trainer.{option}={trainer[option]}: {text}" if option else f"--trainer: {text}"


def _option(chain: Sequence[BaseException]) -> str:
    parts: list[str] = []
    for cause in chain:
        match = re.match(r'Parser key "([^"]+)"', str(cause))
        if match and (not parts or parts[-1] != match[1]):
            parts.append(match[1])
    return _plain(".".join(parts))


def _plain(key: str) -> str:
    key = re.sub(r"^(fit|validate)\.", "", key)
    return re.sub(r"\.(init_args|dict_kwargs)\b", "", key)


def _unknown(argument: str, options: Iterable[str]) -> str:
    if not argument.startswith("-"):
        return f"{argument}: expected an option, as --name=value"
    known = list(options)
    roots = {option.split(".")[0] for option in known}
    name = argument.split("=")[0]
    if name.split(".")[0] not in roots:
        known, name = sorted(roots), name.split(".")[0]
    return f"{argument}: no such option{did_you_mean(name, known)}"


def _refused(option: str, text: str) -> tuple[str, str]:
    """The first option that a class of a union refused and no other one has, and what was said about it."""
    refusals = re.findall(r"(Problem with given class_path '([^']+)'):\s+Option '([^']+)' is not accepted", text)
    if len({refused for _, _, refused in refusals}) < 2:
        return option, text
    known = {name for _, path, _ in refusals for name in parameters_of(_resolve(path))}
    problem, _, refused = next((each for each in reversed(refusals) if each[2] not in known), refusals[-1])
    return refused, problem


def _unknown_parameter(key: str, parameter: str, text: str) -> str:
    value = re.search(rf"NestedArg\(key='{re.escape(parameter)}', val='?(.*?)'?\)", text)
    given = f"={value[1]}" if value else ""
    paths = re.findall(r"Problem with given class_path '([^']+)'", text)
    if not paths:
        return f"--{key}.{parameter}{given}: no such option"
    classes = [_resolve(path) for path in paths]
    # Of a component within a component the inner one, and not the base class that jsonargparse tries after it.
    named = [cls for cls in classes if not any(issubclass(other, cls) and other is not cls for other in classes)]
    hint = did_you_mean(parameter, parameters_of(named[-1])).replace("'", f"'--{key}.", 1)
    return f"--{key}.{parameter}{given}: {named[-1].__name__} has no such option{hint}"


def _explain_interpolation(chain: Sequence[BaseException]) -> str:
    text = "\n".join(map(str, chain))
    missing = re.search(r"Interpolation key '\.*([^']+)'", text)
    key = re.search(r"full_key: (\S+)", text)
    name = missing[1] if missing else "?"
    return (
        f"--{_plain(key[1]) if key else '?'}=${{{name}}}: expected the name of a config entry, but there is no {name}"
    )


def _explain_class(key: str, chain: Sequence[BaseException]) -> str | None:
    text = "\n".join(map(str, chain))
    wrong = (
        re.search(r"Problem with given class_path '([^']+)':\s+(?:No module named|module .* has no attribute)", text)
        or re.search(r"Expected a dot import path string: (\S+)", text)
        or re.search(r"Import path (\S+) does not correspond to a subclass of", text)
    )
    if wrong is None:
        return None
    home = next((module for option, module in _HOMES.items() if key.startswith(option)), None)
    known = [] if home is None else [name for name in importlib.import_module(home).__all__ if name[0].isupper()]
    hint = did_you_mean(wrong[1].rpartition(".")[2], known)
    if home == "lit_mbrl.callbacks" and hint:
        hint = hint.replace("'", "'lit_mbrl.callbacks.", 1)
    return f"--{key}={wrong[1]}: expected the name of a class{hint}"


def _explain_type(key: str, chain: Sequence[BaseException]) -> str | None:
    leaf = re.match(r"Expected an? (.+?)(?:\. Got value: (.*))?$", str(chain[-1]), re.DOTALL)
    if leaf is None or not key:
        return None
    value = leaf[2]
    text = "\n".join(map(str, chain))
    if (kind := _declared(key, text)) is not None:
        name = re.escape(key.rpartition(".")[2])
        given = re.search(rf"NestedArg\(key='(?:[\w.]+\.)?{name}', val=(.*)\)$", text, re.MULTILINE)
        value = given[1].strip("'") if given else value
        return f"--{key}={value}: expected {expected_of(kind)}"
    expected = leaf[1]
    # The union next to the leaf, if it is one of plain types, says all that is possible.
    unions = [str(cause) for cause in chain[:-1] if str(cause).startswith("Does not validate against any of the Union")]
    if unions and (match := re.search(r"Subtypes: \[(.*)\]\nErrors", unions[-1])) and "lightning." not in match[1]:
        subtypes = match[1]
        if "lit_mbrl." not in subtypes:
            expected = subtypes
            given = re.search(r"\nGiven value: (.*)$", unions[-1], re.DOTALL)
            value = given[1] if given else value
    return f"--{key}={value}: expected {type_names(expected)}"


def _declared(key: str, text: str) -> Any:
    """The type of an option as the class declares it that jsonargparse writes of, with its restrictions; or None."""
    names = key.split(".")
    for path in reversed(re.findall(r"Problem with given class_path '([^']+)'", text)):
        for start in range(1, len(names)):
            kind = _resolve(path)
            for name in names[start:]:
                holders = [each for each in (kind, *typing.get_args(kind)) if isinstance(each, type)]
                kind = next((of[name][0] for of in map(declared_options, holders) if name in of), None)
            if kind is not None:
                return kind
    return None


def type_names(types: str) -> str:
    """`<class 'int'>, <class 'NoneType'>` -> `an integer or null`."""
    names: list[str] = []
    for match in re.finditer(r"<class '([^']+)'>|typing\.Literal\[([^\]]*)\]|(list)\[(\w+)\]|([\w.]+)", types):
        kind, literals, _, member, other = match.groups()
        if kind:
            names.append(_TYPES.get(kind, kind.rpartition(".")[2]))
        elif literals is not None:
            names += [literal.strip().strip("'") for literal in literals.split(",")]
        elif member:
            names.append(f"a list ({_TYPES.get(member, member)} each)")
        elif other:
            names.append(_TYPES.get(other, other))
    if len(names) < 2:
        return "".join(names) or _flat(types)
    return ", ".join(names[:-1]) + " or " + names[-1]


def parameters_of(cls: Any) -> list[str]:
    """Names of a class's constructor parameters, those of its parents behind `**kwargs` included."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return [action.dest for action in parser._actions if action.dest != "help"]


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module) or importlib.import_module(module), name)


def _flat(text: str) -> str:
    return " ".join(text.split())
