"""A service that a run can do without: when it fails, one warning, and the run goes on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

_LONGEST = 300  # characters of an exception's text


class Tolerant:
    """Calls of a service, of which there are no more once one has failed.

    Args:
        name: of the service.
        without: what the run does without it, for the warning.
        give_up: is called after the first failure; what it raises, or how long it takes, does not matter.
    """

    def __init__(self, name: str, without: str, give_up: Callable[[], Any]) -> None:
        self.name, self.without, self.lost = name, without, False
        self._give_up = give_up

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function of the service; returns None if it fails, and without a call after that."""
        if self.lost:
            return None
        try:
            return function(*args, **kwargs)
        # Whatever a service of others may raise: the run is worth more.
        except Exception as error:
            self.lose(reason(error))
            return None

    def lose(self, why: str) -> None:
        """Gives the service up, and says so."""
        self.lost = True
        self.warn(f"{why}; {self.without}")
        with contextlib.suppress(Exception):
            within(5.0, self._give_up)

    def warn(self, line: str) -> None:
        """Prints a line about the service."""
        print(f"warning: {self.name}: {line}", file=sys.stderr, flush=True)


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Calls a function and returns its result, or raises.

    Raises:
        TimeoutError: if it takes longer; it goes on in a thread that the end of the process does not wait for.
    """
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.extend((True, function()))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=call, name="tolerated", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    good, value = outcome
    if not good:
        raise value
    return value


def reason(error: BaseException) -> str:
    """The first line of an exception's text, or its kind."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = "".join(character if character.isprintable() else " " for character in lines[0]) if lines else ""
    return (text.strip() or type(error).__name__)[:_LONGEST]
