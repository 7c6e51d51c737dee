"""Tells Weights & Biases of a run whose process was killed.

W&B's own service ends with the process that started it and says nothing, so a killed run goes on as "running" until the
server misses it. The watchdog is a process of its own, in a session of its own, which no signal to the run's process
group reaches. It waits at a pipe; if that closes without a word, it ends the run as failed.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from typing import Any

KILLED = 137  # what a shell reports of SIGKILL
_DISMISSED = b"dismissed"


class Watchdog:
    """Watches over this process until `dismiss`.

    Args:
        entity: whose project.
        project: of the run.
        run_id: the run.
        folder: where W&B may put the files of the report.
    """

    def __init__(self, entity: str, project: str, run_id: str, folder: str) -> None:
        # Not this process's W&B service, which ends with it.
        variables = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        run = json.dumps({"entity": entity, "project": project, "id": run_id, "dir": folder})
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from lit_mbrl.app.watchdog import watch; watch()", run],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        atexit.register(self.dismiss)  # W&B reports the end of a program that forgets to

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """Sends it away: the run says itself how it ends."""
        atexit.unregister(self.dismiss)
        self._process.communicate(_DISMISSED)


def watch() -> None:
    """The watchdog's process."""
    if sys.stdin.buffer.read() == _DISMISSED:
        return
    report(json.loads(sys.argv[-1]))


def report(run: dict[str, Any]) -> None:
    """Ends a run with exit code `KILLED`; what it has sent so far stays."""
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    wandb.init(**run, resume="must", settings=settings).finish(exit_code=KILLED)
