"""The processes of a run on several devices: started as Lightning starts them, watched, and ended together.

Lightning's own watch over them kills rank 0, too, a few seconds after another rank has failed: before it has said what
happened and closed its loggers. Here rank 0 ends by itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

_GRACE = 2.0  # seconds for the last words of a process
_PATIENCE = 60.0  # seconds that rank 0 has to hear by itself that another one is gone


class Launcher(_SubprocessScriptLauncher):
    """Starts a process for each device but the first and, if one of them fails, ends all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._over = threading.Event()

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Starts the other processes, watches over them, and calls the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, name="watch-other-devices", daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        finally:
            self._over.set()

    def failure(self, seconds: float = 0.0) -> str | None:
        """Returns which device's process has failed, and how; None if there is none.

        Args:
            seconds: how long to wait for it: a process that raises takes a moment to end.
        """
        deadline = time.monotonic() + seconds
        while True:
            for device, process in enumerate(self.procs, start=1):
                if code := process.poll():
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    return f"the process of device {device} has failed ({how})"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the other processes, which may be waiting for one that is gone; those that end by themselves may."""
        deadline = time.monotonic() + _GRACE
        while any(process.poll() is None for process in self.procs) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in self.procs:
            process.kill()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            if (failure := self.failure()) is not None:
                self.stop()
                # Over gloo rank 0 hears of it at once. Over NCCL it may wait for ever, out of Python's reach.
                if not self._over.wait(_PATIENCE):
                    os.write(2, f"error: {failure}, and the run cannot go on without it\n".encode())
                    os._exit(1)
                return
