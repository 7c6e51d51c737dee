"""The command line: `python -m lit_mbrl`."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"
