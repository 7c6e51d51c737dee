"""Runs a command and reports its errors: one line for what a user can mend or has to know, a traceback for a bug."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mbrl.app.env_errors import with_traceback
from lit_mbrl.app.output import silence_libraries
from lit_mbrl.callbacks import Aborted
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import OptionError, TrainingError, UsageError, printable


def run_command(command: Callable[[Sequence[str]], object], argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0, or another one after a line for what a user has to know."""
    with silence_libraries():
        try:
            command(argv)
        except (OptionError, UsageError) as error:
            return _fail(with_traceback(error))
        except TrainingError as error:
            return _fail(with_traceback(error), 1)
        except Aborted:
            if distributed.rank() == 0:
                print("Stopped at once; the last checkpoint is where a resumed run starts.", file=sys.stderr)
            return 130
    return 0


def _fail(line: str, code: int = 2) -> int:
    where = f" on device {distributed.rank()}" if distributed.rank() > 0 else ""
    print(f"error{where}: {printable(line)}", file=sys.stderr, flush=True)
    return code


@contextmanager
def trainer_errors() -> Iterator[None]:
    """Turns what Lightning finds wrong with its options when it starts into a `UsageError`."""
    try:
        yield
    except MisconfigurationException as error:
        raise UsageError(" ".join(str(error).split())) from error
