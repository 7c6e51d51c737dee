"""`python -m lit_mbrl`."""

import os
import sys

# `python -m` puts the working directory first, and there a file may have the name of a package that we import.
_HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(".") != _HERE:
    sys.path.append(sys.path.pop(0))

from lit_mbrl.app.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
