"""Errors that a user can mend: one line that names the option, its value and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OptionError(ValueError):
    """Wrong input by the user. The command line prints it as one line and exits with code 2.

    Args:
        option: the option as it is typed on the command line, without the leading dashes (`model.horizon`).
        value: what was given.
        expected: what would be right (`an integer >= 0`).
    """

    def __init__(self, option: str, value: object, expected: str) -> None:
        self.option, self.value, self.expected = option, value, expected
        shown = list(value) if isinstance(value, tuple) else value  # as it is typed
        super().__init__(f"--{option}={shown}: expected {expected}")

    def __reduce__(self) -> tuple:
        # Exceptions pickle with the message alone; worker processes send this one whole.
        return OptionError, (self.option, self.value, self.expected)


class UsageError(Exception):
    """A mistake by the user that has no single option to name. Its text is what the user sees."""


class TrainingError(RuntimeError):
    """A run that cannot go on, through no mistake of its command line. Printed as one line, exit code 1."""


def printable(text: str, keep: str = "") -> str:
    """The text without what a terminal would obey: `\\x1b` for an escape. Names may come from files of others.

    Args:
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)


def require(condition: bool, option: str, value: object, expected: str) -> None:
    """Raises `OptionError` unless `condition` holds."""
    if not condition:
        raise OptionError(option, value, expected)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name, `" (did you mean 'Pendulum-v1'?)"`, or an empty string if nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
