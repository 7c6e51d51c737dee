"""Keeps what C code prints off the terminal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_c_code() -> Iterator[None]:
    """Drops what C code writes to the standard streams: PyBullet announces its build and every connection there."""
    if os.name != "posix":
        yield
        return
    libc = ctypes.CDLL(None)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    libc.fflush(None)
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd, _ in saved:
            os.dup2(sink, fd)
        yield
    finally:
        libc.fflush(None)
        os.close(sink)
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)
