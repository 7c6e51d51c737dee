"""Command lines: what is looked up, checked and filled in before the parser sees them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from lit_mbrl.app import CONF
from lit_mbrl.app.checkpoints import followed, require_file, saved_config
from lit_mbrl.app.defaults import has_defaults, read_config
from lit_mbrl.app.output import shorten
from lit_mbrl.app.run_folder import CHECKPOINTS, folder_of, folder_of_config
from lit_mbrl.utils.errors import did_you_mean, require
from lit_mbrl.utils.files import is_file
from lit_mbrl.utils.yaml import check_yaml, read_yaml

CHECKPOINT_WORDS = ("last", "best")
COMMANDS = ("fit", "validate")
_CONFIG = ("--config", "-c")
_FLAGS = ("--help", "--print_config", "--trust")  # which take no word as their value
_SECTION = re.compile(r"--(model|data)\b")
_NULLS = ("null", "Null", "NULL", "~")
_NULL_IN_ENV = re.compile(rf"(--data(?:\.init_args)?\.env)((?:\.\w+)+)=(?:{'|'.join(_NULLS)})")


def option_values(argv: Sequence[str], *names: str) -> list[str]:
    """Returns the command line's value of an option, as `--name value` or `--name=value`."""
    values = [word.partition("=")[2] for word in argv if word.partition("=")[0] in names and "=" in word]
    return values + [following for word, following in pairwise(argv) if word in names]


def in_order_of_precedence(argv: Sequence[str], commands: Sequence[str] = COMMANDS) -> list[str]:
    """Sorts a command line so that the parser, which lets the last word win, lets every option hold.

    The command comes first, then the config files in their order, then options. A class goes before its options and a
    section before its entries (`--model` before `--model.gamma`), or it would take them back.
    """
    first: list[str] = []
    files: list[str] = []
    others: list[tuple[int, list[str]]] = []
    for words in _options(argv):
        name = words[0].partition("=")[0]
        if words[0] in commands and not first:
            first = words
        elif name in _CONFIG:
            files += words
        else:
            section = _SECTION.match(name)
            depth = len(re.sub(r"\.(init_args|class_path)\b", "", name).split(".")) if section else 0
            others.append((depth, words))
    # Options outside of these sections keep their places among each other: `+=` appends, and what follows is about it.
    return [*first, *files, *(word for _, words in sorted(others, key=lambda other: other[0]) for word in words)]


def _options(argv: Sequence[str]) -> Iterator[list[str]]:
    """The options of a command line, each with its value if that is a word of its own."""
    words = list(argv)
    while words:
        option = words.pop(0)
        takes_next = (option.startswith("--") or option in _CONFIG) and "=" not in option and option not in _FLAGS
        yield [option, words.pop(0)] if takes_next and words and not words[0].startswith("--") else [option]


def with_config_of_checkpoint(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """Checks the config files, adds that of the checkpoint's run if there is none, and sorts the command line.

    Returns:
        The words for the parser; and the checkpoint, or the file of a run folder, whose configuration is among them, if
        there is one and `--trust` is not given.

    Raises:
        OptionError: if a config file is missing or is not YAML.
    """
    trusted = "--trust" in argv
    ordered = in_order_of_precedence([word for word in _joined(argv) if word != "--trust"])
    argv = [_packaged(_with_null(word)) for word in ordered]
    configs = config_files(argv)
    for name in configs:
        _check_config_file(name)
    for word in argv:
        _check_value(word)
    argv = _with_defaults(argv)
    source = next((Path(name) for name in configs if folder_of_config(Path(name)) is not None), None)
    for option in ("ckpt_path", "init_from") if not configs else ():
        for name in option_values(argv, f"--{option}")[-1:]:
            source = source or _checkpoint_named(option, name, argv)
    if not configs and source is not None and (config := _config_of(source)) is not None:
        argv = [*argv[:1], f"--config={config}", *argv[1:]]
    return argv, None if trusted else source


def _checkpoint_named(option: str, name: str, argv: Sequence[str]) -> Path | None:
    """The file that `--ckpt_path` or `--init_from` means, as far as the command line tells."""
    if "${" in name:
        return None
    if option == "ckpt_path" and name in CHECKPOINT_WORDS:
        folders = option_values(argv, "--trainer.default_root_dir")
        path = Path(folders[-1]) / CHECKPOINTS / f"{name}.ckpt" if folders else None
        return path if path is not None and is_file(path) else None
    path = followed(Path(name))
    require_file(option, path)
    return path


def _config_of(checkpoint: Path) -> str | None:
    """The configuration in a checkpoint, which one that was written from Python has beside it at best."""
    if (text := saved_config(checkpoint)) is not None:
        check_yaml(text, "ckpt_path", checkpoint)
        return text
    folder = folder_of(checkpoint)
    beside = None if folder is None else folder / "config.yaml"
    if beside is None or not is_file(beside):
        return None
    _check_config_file(str(beside))
    return str(beside)


def resume_command(argv: Sequence[str], run_folder: Path, checkpoints: str = CHECKPOINTS) -> str:
    """The command line that goes on where this one stops."""
    kept: list[str] = []
    skip = False
    for word in argv:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif name in ("--ckpt_path", "--init_from", "--stage"):
            skip = word == name
        else:
            kept.append(word)
    # `last` might be another run's by then.
    checkpoint = shorten(run_folder / checkpoints / "last.ckpt")
    return shlex.join(["python", "-m", "lit_mbrl", *kept, "--ckpt_path", str(checkpoint)])


def _joined(argv: Sequence[str]) -> list[str]:
    """`--data.env.pixels null`, two words, as one."""
    words: list[str] = []
    for word in argv:
        if word in _NULLS and words and words[-1].startswith("--data.") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _with_null(word: str) -> str:
    """`--data.env.pixels=null` in a form that the parser understands: it would take this one for the text `None`."""
    match = _NULL_IN_ENV.fullmatch(word)
    if match is None:
        return word
    if match[2].split(".")[1] in ("kwargs", "eval_kwargs") and match[2].count(".") > 1:
        return f"{match[1]}{match[2]}=${{oc.decode:null}}"  # a mapping would take their other entries back
    value: dict | None = None
    for name in reversed(match[2].split(".")[1:]):
        value = {name: value}
    return f"{match[1]}={json.dumps(value)}"


def _packaged(word: str) -> str:
    """`conf/...` means the package's own, unless the working directory has one."""
    option, equals, name = word.rpartition("=")
    found = CONF / name.removeprefix("conf/")
    if option in ("", "--config", "-c") and name.startswith("conf/") and not Path(name).exists() and found.is_file():
        return f"{option}{equals}{found}"
    return word


def config_files(argv: Sequence[str]) -> list[str]:
    """The config files on a command line, in their order."""
    found = [words for words in _options(argv) if words[0].partition("=")[0] in _CONFIG]
    return [words[1] if len(words) > 1 else words[0].partition("=")[2] for words in found]


def _with_defaults(argv: Sequence[str]) -> list[str]:
    """Puts the content of the config files that take over others in their place."""
    words: list[str] = []
    for option in _options(argv):
        name = option[1] if len(option) > 1 else option[0].partition("=")[2]
        if option[0].partition("=")[0] in _CONFIG and has_defaults(Path(name)):
            words.append(f"--config={yaml.safe_dump(read_config(Path(name)), sort_keys=False)}")
        else:
            words += option
    return words


def _check_config_file(name: str) -> None:
    path = Path(name)
    known = [f"conf/{file.relative_to(CONF).as_posix()}" for file in CONF.rglob("*.yaml")]
    missing = "a config file, but there is no such file"
    require(is_file(path), "config", name, f"{missing}{did_you_mean(name, known) if len(name) < 256 else ''}")
    content = read_yaml(path, "config")
    require(isinstance(content, dict), "config", name, "YAML with entries as model, data and trainer")


def _check_value(word: str) -> None:
    """The values of options are YAML, too: what hangs in a file hangs in them."""
    option, _, value = word.partition("=")
    if option.startswith("--") and ("&" in value or "[[" in value or "{" in value):
        try:
            yaml.compose(value, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError):
            return  # text, or something that the parser explains
        except RecursionError:
            pass
        check_yaml(value, option.removeprefix("--"), value if len(value) < 200 else f"{value[:200]}...")
