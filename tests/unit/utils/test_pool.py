"""The pool of processes: how many at a time, what is said of each, and that none outlives it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_mbrl.utils.pool import Job, Pool

# Waits for SIGTERM, says that it came, and ends in its own time, as a run does that writes a checkpoint.
PATIENT = (
    "import signal, sys, time\n"
    "def stop(number, frame):\n    print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\nprint('ready', flush=True)\ntime.sleep(60)"
)
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
)


def job(folder: Path, name: str, code: str, **variables: str) -> Job:
    return Job(name, (sys.executable, "-c", code), folder / "logs" / f"{name}.log", os.environ | variables)


def until_ready(*jobs: Job) -> None:
    deadline = time.monotonic() + 60
    while not all(each.log.is_file() and "ready\n" in each.log.read_text() for each in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exit_codes_logs_and_environments(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "good", "import os; print(os.environ['COLOUR'])", COLOUR="red"),
        job(tmp_path, "bad", "import sys; print('why', file=sys.stderr); sys.exit(3)"),
        job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
    ]
    with Pool(2) as pool:
        found = {finished.job.name: finished for finished in pool.run(jobs)}
    assert {name: finished.exit_code for name, finished in found.items()} == {"good": 0, "bad": 3, "killed": -9}
    assert all(finished.seconds > 0 for finished in found.values()) and pool.stopped is None
    command, output = jobs[0].log.read_text().splitlines()
    assert command.startswith(f"$ {sys.executable} -c ") and output == "red"
    assert jobs[1].log.read_text().splitlines()[1:] == ["why"]
    with Pool(1) as pool:
        list(pool.run(jobs[:1]))
    assert jobs[0].log.read_text().count("red\n") == 2  # a log goes on where it was


@pytest.mark.parametrize("size", [1, 3])
def test_jobs_are_taken_as_processes_become_free(size: int, tmp_path: Path) -> None:
    taken, most = 0, 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for i in range(5):
            taken += 1
            yield job(tmp_path, str(i), "")

    with Pool(size) as pool:
        for ended, _ in enumerate(pool.run(jobs())):
            most = max(most, taken - ended)
    assert taken == 5 and most == size


@pytest.fixture
def terminal() -> Iterator[None]:
    """SIGHUP as it is without nohup."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("terminal")
def test_a_signal_lets_processes_save_and_starts_no_more(number: signal.Signals, tmp_path: Path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    jobs = [job(tmp_path, str(i), PATIENT) for i in range(3)]

    def told() -> Iterator[Job]:
        yield from jobs[:2]
        until_ready(*jobs[:2])
        os.kill(os.getpid(), number)
        yield jobs[2]

    with Pool(3) as pool:
        codes = {finished.job.name: finished.exit_code for finished in pool.run(told())}
    assert pool.stopped == number
    assert all("saved" in each.log.read_text() for each in jobs[:2])
    # The third was on its way when the signal came: it is told, too, at whatever point of its start.
    assert codes.keys() == {"0", "1", "2"} and codes["0"] == codes["1"] == 0 and codes["2"] in (0, -signal.SIGTERM)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_no_job_is_taken_after_a_signal(tmp_path: Path) -> None:
    first = job(tmp_path, "first", PATIENT)

    def jobs() -> Iterator[Job]:
        yield first
        raise AssertionError("taken")

    with Pool(1) as pool:
        running = pool.run(jobs())
        signal.signal(signal.SIGALRM, lambda *_: (until_ready(first), os.kill(os.getpid(), signal.SIGTERM)))
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            assert [finished.job.name for finished in running] == ["first"]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_a_second_sigint_kills(tmp_path: Path) -> None:
    stubborn = job(tmp_path, "stubborn", STUBBORN)

    def jobs() -> Iterator[Job]:
        yield stubborn
        until_ready(stubborn)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)

    with Pool(2) as pool:
        (finished,) = pool.run(jobs())
    assert finished.exit_code == -signal.SIGKILL and pool.stopped == signal.SIGINT


def test_nohup_is_respected(tmp_path: Path) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with Pool(1) as pool:
            os.kill(os.getpid(), signal.SIGHUP)
            (finished,) = pool.run([job(tmp_path, "a", "")])
        assert finished.exit_code == 0 and pool.stopped is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_an_exception_leaves_no_process(tmp_path: Path) -> None:
    patient, quick = job(tmp_path, "patient", PATIENT), job(tmp_path, "quick", "")

    def jobs() -> Iterator[Job]:
        yield patient
        until_ready(patient)
        yield quick

    with pytest.raises(ZeroDivisionError), Pool(2) as pool:
        for _ in pool.run(jobs()):
            raise ZeroDivisionError
    assert patient.log.read_text().splitlines()[-1] == "saved"
