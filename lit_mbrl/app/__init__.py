"""The command line: `python -m lit_mbrl`."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# The installed library has the configs inside: beside it, `conf` may be somebody else's.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
