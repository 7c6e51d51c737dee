"""The watchdog; `test_sweeps.py` has one that reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from lit_mbrl.app.watchdog import Watchdog

ROOT = Path(__file__).parents[3]


def test_a_dismissed_watchdog_goes_without_a_word(tmp_path: Path) -> None:
    watchdog = Watchdog("team", "project", "run", str(tmp_path))
    process = psutil.Process(watchdog.pid)
    assert os.getsid(watchdog.pid) == watchdog.pid != os.getsid(0)  # out of reach of signals to this process group
    watchdog.dismiss()
    assert not process.is_running()
    assert list(tmp_path.iterdir()) == []  # W&B would have left files


def test_a_program_that_ends_without_dismissing_is_not_reported(tmp_path: Path) -> None:
    program = (
        "import sys; from lit_mbrl.app.watchdog import Watchdog; print(Watchdog('t', 'p', 'run', sys.argv[1]).pid)"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=variables, check=True, text=True, capture_output=True
    )
    assert not psutil.pid_exists(int(done.stdout)) and done.stderr == ""
    assert list(tmp_path.iterdir()) == []
