"""Options of the small commands, which have no config file: read by argparse, complained about in one line."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, NoReturn

from lit_mbrl.utils.errors import UsageError, did_you_mean, require


class OptionParser(argparse.ArgumentParser):
    """A parser that raises `UsageError` instead of printing usage and exiting, and takes no abbreviated options."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        super().__init__(prog=f"python -m lit_mbrl {command}", description=description, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        if match := re.match(r"the following arguments are required: ([^,\s]+)", message):
            wanted = next(a for a in self._actions if match[1] in (*a.option_strings, a.metavar))
            raise UsageError(f"{match[1]}: expected {wanted.help}")
        if match := re.match(r"argument (\S+): expected (?:one|at least one) argument", message):
            raise UsageError(f"{match[1]}: expected a value")
        if match := re.match(r"unrecognized arguments: (\S+)", message):
            name = match[1].partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            raise UsageError(f"{match[1]}: no such option{did_you_mean(name, known)}")
        raise UsageError(message.removeprefix("argument "))


def positive_integer(option: str, text: str) -> int:
    """Reads an integer > 0; raises `OptionError` for anything else."""
    require(text.isascii() and text.isdigit() and int(text) > 0, option, text, "an integer > 0")
    return int(text)


def positive_number(option: str, text: str) -> float:
    """Reads a finite number > 0; raises `OptionError` for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(math.isfinite(value) and value > 0, option, text, "a number > 0")
    return value
