"""Calls of other people's code that do not return: an environment's step, a simulator's start.

One thread looks twice a second at which call is running. A call that has used up its time is interrupted by an
exception in the main thread. Where that does not help, since the call is stuck outside of Python or swallows every
exception, the process ends with one line. A call has less time once the run was asked to stop (`ask_to_stop`).

Time counts in looks of that thread, so a process that was suspended has not used any up.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

STOP_SECONDS = 10.0  # for the running call after a request to stop
_TICK = 0.5
_LAST_SECONDS = 5.0  # between the exception and the end of the process
_SIGNAL = signal.SIGURG  # ignored by default, and used by nobody else


class Overdue(BaseException):
    """Raised inside a call that takes too long; its text says how long that was."""


class Call:
    """A call that may take so long; `running` is one while it goes on.

    Args:
        what: for the last line of a process that cannot be interrupted, and for a notice.
        seconds: how long it may take; None: for ever.
        notice: seconds after which a line says that it goes on, and again each time it has taken four times as long.
            A request to stop leaves such a call so many seconds, as another process may have work to end. None: there
            is no notice.
    """

    __slots__ = ("late", "main", "notice", "patience", "seconds", "what")

    def __init__(self, what: Callable[[], str], seconds: float | None, notice: float | None = None) -> None:
        self.what, self.seconds, self.notice = what, seconds, notice
        self.patience = notice or STOP_SECONDS
        self.late = ""
        self.main = threading.get_ident() == _MAIN


class Watch:
    """Watches over the calls of the main thread.

    Attributes:
        running: the running call; None: there is none. Whoever makes a call sets it and takes it back.
        last_words: what else there is to say before a process ends.
    """

    def __init__(self) -> None:
        self.running: Call | None = None
        self.last_words: Callable[[], str] = str
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to watch, unless it does already; outside of the main thread there is nothing to watch."""
        if self._thread is None and threading.get_ident() == _MAIN:
            signal.signal(_SIGNAL, self._interrupt)
            self._thread = threading.Thread(target=self._look, name="overdue-calls", daemon=True)
            self._thread.start()

    def ask_to_stop(self, stopping: bool = True) -> None:
        """Gives calls `STOP_SECONDS` at most, or those with a notice its time; with False, their own time again."""
        self._stopping = stopping

    def _look(self) -> None:
        seen: Call | None = None
        running = stopping = late = 0.0
        while True:
            time.sleep(_TICK)
            call = self.running
            if call is None or call is not seen or not call.main:
                seen, running, stopping, late = call, 0.0, 0.0, 0.0
                continue
            running += _TICK
            stopping = stopping + _TICK if self._stopping else 0.0
            if call.late:
                late += _TICK
                if late >= _LAST_SECONDS:
                    self._say_and_end(f"{call.what()} did not return {call.late}, and cannot be interrupted")
            elif call.seconds is not None and running >= call.seconds:
                self._raise_in(call, f"within {call.seconds:g} s")
            elif call.notice is not None:
                if stopping >= call.patience:
                    self._say_and_end(f"{call.what()} for {running:.0f} s, {stopping:.0f} s after the signal to stop")
                if running >= call.notice:
                    call.notice *= 4
                    os.write(2, f"warning: {call.what()} for {running:.0f} s\n".encode())
            elif stopping >= STOP_SECONDS:
                self._raise_in(call, f"within {STOP_SECONDS:g} s of the signal to stop")

    def _raise_in(self, call: Call, late: str) -> None:
        call.late = late
        signal.pthread_kill(_MAIN, _SIGNAL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        call = self.running
        if call is not None and call.late:
            raise Overdue(call.late)

    def _say_and_end(self, words: str) -> None:
        if more := self.last_words():
            words += f"; {more}"
        os.write(2, f"error: {words}\n".encode())
        os._exit(1)


_MAIN = threading.main_thread().ident or 0
WATCH = Watch()
