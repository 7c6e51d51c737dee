"""Calls that take too long, or are waited for."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from lit_mbrl.utils import distributed, overdue
from lit_mbrl.utils.overdue import WATCH, Call, Overdue


@pytest.fixture(autouse=True)
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ticks in quick succession."""
    monkeypatch.setattr(overdue, "_TICK", 0.05)
    WATCH.start()
    yield
    WATCH.running = None
    WATCH.ask_to_stop(False)


def wait(call: Call, seconds: float) -> None:
    """Waits in a call."""
    try:
        WATCH.running = call
        time.sleep(seconds)
    finally:
        WATCH.running = None


def test_a_call_within_its_time_is_left_alone() -> None:
    for _ in range(5):
        wait(Call(lambda: "it", 0.5), 0.3)
    wait(Call(lambda: "it", None), 1.0)


def test_a_call_beyond_it_is_interrupted() -> None:
    start = time.monotonic()
    with pytest.raises(Overdue, match=r"^within 0\.3 s$"):
        wait(Call(lambda: "it", 0.3), 60.0)
    assert time.monotonic() - start < 30


def test_a_request_to_stop_leaves_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "STOP_SECONDS", 0.2)
    WATCH.ask_to_stop()
    with pytest.raises(Overdue, match=r"^within 0\.2 s of the signal to stop$"):
        wait(Call(lambda: "it", 60.0), 60.0)
    with pytest.raises(Overdue):  # even where there was no limit
        wait(Call(lambda: "it", None), 60.0)


def test_only_the_main_thread_is_interrupted() -> None:
    done = threading.Event()

    def other() -> None:
        call = Call(lambda: "it", 0.1)
        WATCH.running = call
        time.sleep(1.0)
        if not call.late:
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert done.is_set()


def test_who_waits_for_others_says_so(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gloo group whose other rank does not answer for a while."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "_messages", lambda: None)
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: time.sleep(2.0))
    monkeypatch.setattr(distributed, "NOTICE_SECONDS", 0.3)
    distributed.average_([torch.ones(3)])
    distributed.any_of(False)
    lines = capfd.readouterr().err.splitlines()
    words = "warning: device 1 has been waiting for the processes of the others (is one of them suspended?) for"
    assert len(lines) == 4 and all(line.startswith(words) for line in lines)  # after 0.3 and 1.2 s, twice


def test_who_waits_for_others_ends_in_the_time_of_a_notice() -> None:
    """A wait within C code, which no exception interrupts, in a process of its own."""
    program = """
import sys, time
from lit_mbrl.utils import overdue
overdue._TICK = 0.05
overdue.WATCH.start()
overdue.WATCH.last_words = lambda: "the last checkpoint is last.ckpt"
overdue.WATCH.ask_to_stop()
overdue.WATCH.running = overdue.Call(lambda: "it has been waiting", None, float(sys.argv[1]))
time.sleep(2.0)
"""
    others_end = subprocess.run([sys.executable, "-c", program, "60"], capture_output=True, text=True)
    assert others_end.returncode == 0 and not others_end.stderr  # they may have work to end
    suspended = subprocess.run([sys.executable, "-c", program, "0.3"], capture_output=True, text=True)
    assert suspended.returncode == 1
    (line,) = suspended.stderr.splitlines()
    assert re.fullmatch(
        r"error: it has been waiting for 0 s, 0 s after the signal to stop; the last .* last.ckpt", line
    )
