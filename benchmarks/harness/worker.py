"""Contenders that keep going: each in a process of its own, warm, and asleep while another has its turn.

A contender is a function `(work, meter)` that trains until it is interrupted and calls `meter.tick()` after every
round. In there it sleeps between its turns. Its start and its first round (imports, compilation) are over before the
first turn.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import IO

from benchmarks.harness.work import ROOT, Work

# Name -> "module:function"; the modules are imported in the contender's own process.
CONTENDERS = {
    "lit_mbrl": "benchmarks.contenders.ours:train",
    "bare": "benchmarks.contenders.bare:train",
    "sb3": "benchmarks.contenders.peer_sb3:train",
    "sheeprl": "benchmarks.contenders.peer_sheeprl:train",
    "fruitbot": "benchmarks.studies.fruitbot:train_ours",
    "sb3_fruitbot": "benchmarks.studies.fruitbot:train_sb3",
    "lit_mbrl dreamer": "benchmarks.suites.dreamer:train",
    "sheeprl dreamer": "benchmarks.contenders.peer_sheeprl_dreamer:train",
    "mbrl": "benchmarks.contenders.peer_mbrl:train",
}


class Finished(Exception):
    """Nobody asks for more rounds."""


class Meter:
    """The contender's end: counts rounds, times turns.

    Args:
        reader: the orders: a number of rounds per line.
        writer: the answers: `started`, `ready`, then the seconds of each order, by the clock and of the processor.

    Attributes:
        finished: nobody asks for more.
    """

    def __init__(self, reader: IO[str], writer: IO[str]) -> None:
        self._reader, self._writer = reader, writer
        self.finished = False
        self._left: int | None = None
        self._is_started = False
        self._begin = self._stopped = self._outside = (0.0, 0.0)

    def _answer(self, line: str) -> None:
        self._writer.write(line + "\n")
        self._writer.flush()

    def started(self) -> None:
        """Call after an environment step: the first of them is the end of the start-up."""
        if not self._is_started:
            self._is_started = True
            self._answer("started")

    def stop_clock(self) -> None:
        """From here on something happens that is not compared."""
        self._stopped = _now()

    def start_clock(self) -> None:
        """Up to here."""
        self._outside = _add(self._outside, _since(self._stopped))

    def tick(self) -> None:
        """Call after every round.

        Raises:
            Finished: when the comparison is over.
        """
        if self._left is None:
            self.started()
            self._answer("ready")
        else:
            self._left -= 1
            if self._left:
                return
            wall, processor = _since(_add(self._begin, self._outside))
            self._answer(f"{wall!r} {processor!r}")
        order = self._reader.readline()
        self.finished = not order
        if self.finished:
            raise Finished
        self._left, self._outside = int(order), (0.0, 0.0)
        self._begin = _now()


def _now() -> tuple[float, float]:
    """By the clock, and of this process's processors."""
    return time.perf_counter(), time.process_time()


def _add(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] + second[0], first[1] + second[1]


def _since(then: tuple[float, float]) -> tuple[float, float]:
    now = _now()
    return now[0] - then[0], now[1] - then[1]


def serve(name: str, work: Work, reader: IO[str], writer: IO[str]) -> None:
    """Runs a contender until the other end closes."""
    module, _, function = CONTENDERS[name].partition(":")
    meter = Meter(reader, writer)
    try:
        getattr(importlib.import_module(module), function)(work, meter)
        raise RuntimeError(f"{name} has stopped by itself")
    except BaseException:
        if not meter.finished:  # or it is `Finished`, or what a library has made of it
            writer.write("failed: " + traceback.format_exc().replace("\n", "\\n") + "\n")
            writer.flush()
    finally:
        reader.close()
        writer.close()


class Contender:
    """The other end.

    Args:
        name: which one, of `CONTENDERS`.
        work: what it does.
        python: the interpreter; None: this one.
        in_thread: in a thread of this process, which starts sooner and is no measurement.
        environment: further variables of its process.

    Attributes:
        processor: seconds that the processors have worked for it in its last turn.

    Raises:
        RuntimeError: if it fails.
    """

    def __init__(
        self,
        name: str,
        work: Work,
        python: str | None = None,
        in_thread: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.processor = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._orders, self._answers = os.fdopen(ours_out, "w"), os.fdopen(ours_in)
        self._begin = time.perf_counter()
        if in_thread:
            ends = os.fdopen(theirs_in), os.fdopen(theirs_out, "w")
            self._thread = threading.Thread(target=serve, args=(name, work, *ends), daemon=True)
            self._thread.start()
            return
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        command = [python or sys.executable, "-m", "benchmarks.harness.worker", name, work.dumps()]
        self._process = subprocess.Popen(
            [*command, str(theirs_in), str(theirs_out)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {}),
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def started(self) -> float:
        """Waits for the first environment step; the seconds from the process's start."""
        self._expect("started")
        return time.perf_counter() - self._begin

    def ready(self) -> float:
        """Waits for the end of the first round; the seconds from the process's start."""
        self.started()
        self._expect("ready")
        return time.perf_counter() - self._begin

    def turn(self, rounds: int) -> float:
        """Seconds of that many rounds."""
        self._orders.write(f"{rounds}\n")
        self._orders.flush()
        wall, self.processor = map(float, self._read().split())
        return wall

    def block(self, rounds: int) -> Callable[[], float]:
        """A contender for `pairs.interleave`."""
        return lambda: self.turn(rounds)

    def close(self) -> None:
        """Ends it."""
        self._orders.close()
        if self._thread is not None:
            self._thread.join()
        if self._process is not None:
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._answers.close()
        self._errors.close()

    def kill(self) -> None:
        """Ends its process at once, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def _expect(self, word: str) -> None:
        answer = self._read()
        if answer != word:
            raise RuntimeError(f"expected {word}, not {answer}")

    def _read(self) -> str:
        answer = self._answers.readline().strip()
        if not answer or answer.startswith("failed: "):
            self._errors.seek(0)
            raise RuntimeError(answer.replace("\\n", "\n") or f"a contender has died:\n{self._errors.read()}")
        return answer


if __name__ == "__main__":
    # The importable module's, so that there is one class `Finished`.
    from benchmarks.harness import worker

    worker.serve(sys.argv[1], Work.loads(sys.argv[2]), os.fdopen(int(sys.argv[3])), os.fdopen(int(sys.argv[4]), "w"))
