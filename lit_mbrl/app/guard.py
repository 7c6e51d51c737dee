"""What becomes of an error: one line for what a user can mend or has to know, a traceback for a bug."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import Aborted
from lit_mbrl.app.env_errors import with_traceback
from lit_mbrl.app.output import quiet
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import OneLine, RunFailed, UserError, printable


def guarded(command: Callable[[Sequence[str]], object], argv: Sequence[str]) -> int:
    """Runs a command as `run` does: 0, or what it is that a user has to know in one line and another exit code."""
    with quiet():
        try:
            command(argv)
        except (UserError, OneLine) as error:
            return _fail(with_traceback(error))
        except RunFailed as error:
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
    """What Lightning finds wrong with its options only when it starts."""
    try:
        yield
    except MisconfigurationException as error:
        raise OneLine(" ".join(str(error).split())) from error
