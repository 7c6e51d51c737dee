"""Command lines: what is looked up, checked and filled in before the parser sees them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from lit_mbrl.app import CONF
from lit_mbrl.app.run_folder import folder_of
from lit_mbrl.utils.errors import UserError, did_you_mean, require

CHECKPOINT_WORDS = ("last", "best")
_NULLS = ("null", "Null", "NULL", "~")
_NULL_IN_ENV = re.compile(rf"(--data(?:\.init_args)?\.env)((?:\.\w+)+)=(?:{'|'.join(_NULLS)})")


def option_values(argv: Sequence[str], *names: str) -> list[str]:
    """What the command line gives for an option, as `--name value` or `--name=value`."""
    values = [word.partition("=")[2] for word in argv if word.partition("=")[0] in names and "=" in word]
    return values + [following for word, following in pairwise(argv) if word in names]


def with_config_of_checkpoint(argv: Sequence[str]) -> list[str]:
    """Checks the config files, and adds that of the checkpoint's run if there is none.

    Raises:
        UserError: if a config file is missing or is not YAML.
    """
    argv = [_packaged(_with_null(word)) for word in _joined(argv)]
    configs = option_values(argv, "--config", "-c")
    for name in configs:
        _check_config_file(name)
    for checkpoint in option_values(argv, "--ckpt_path") if not configs else []:
        path = Path(checkpoint)
        known = path.is_file() or checkpoint in CHECKPOINT_WORDS
        require(known, "ckpt_path", path, "a checkpoint, but there is no such file")
        folder = folder_of(path)
        if folder is not None and (folder / "config.yaml").is_file():
            return [*argv[:1], f"--config={folder / 'config.yaml'}", *argv[1:]]
    return argv


def resume_command(argv: Sequence[str], run_folder: Path) -> str:
    """The command line that goes on where this one stops."""
    kept: list[str] = []
    named = skip = False
    for word in argv:
        if skip:
            skip = False
        elif word.partition("=")[0] == "--ckpt_path":
            named, skip = True, word == "--ckpt_path"
        else:
            kept.append(word)
    # A run that was resumed by its path need not be the newest of its family.
    checkpoint = run_folder / "checkpoints" / "last.ckpt" if named else "last"
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
    if match is None or (match[2].split(".")[1] in ("kwargs", "eval_kwargs") and match[2].count(".") > 1):
        return word
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


def _check_config_file(name: str) -> None:
    path = Path(name)
    known = [f"conf/{file.relative_to(CONF).as_posix()}" for file in CONF.rglob("*.yaml")]
    require(path.is_file(), "config", name, f"a config file, but there is no such file{did_you_mean(name, known)}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise UserError("config", name, f"YAML, but {problem}{where}") from error
    require(isinstance(content, dict), "config", name, "YAML with entries as model, data and trainer")
