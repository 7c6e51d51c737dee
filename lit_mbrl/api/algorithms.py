"""The algorithms that there are, read from their sources: nothing is imported."""

from __future__ import annotations

from lit_mbrl.app.cli import algorithms


def list_algorithms() -> dict[str, str]:
    """Returns the paper of every algorithm, by its name."""
    return dict(sorted(algorithms()))
