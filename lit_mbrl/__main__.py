"""`python -m lit_mbrl`."""

import sys

from lit_mbrl.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
