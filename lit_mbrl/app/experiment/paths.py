"""Floating-point paths: ways in which the same run rounds differently, each of which has to learn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_mbrl.utils.errors import did_you_mean, require


@dataclass(frozen=True)
class FloatPath:
    """A floating-point path.

    Attributes:
        name: as in `--paths`.
        variables: environment variables of the runs.
        options: further options of `fit`.
    """

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """All environment variables of a process on this path: ours, without those that would lead to another."""
        ours = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        return ours | dict(self.variables)


PATHS = {
    path.name: path
    for path in (
        FloatPath("native"),
        FloatPath("mkl-compatible", {"MKL_CBWR": "COMPATIBLE"}),
        FloatPath("mkl-avx2", {"MKL_CBWR": "AVX2"}),
        FloatPath("aten-default", {"ATEN_CPU_CAPABILITY": "default"}),
        FloatPath("two-threads", options=("--num_threads=2",)),
        FloatPath("compiled", options=("--model.compile=true",)),
    )
}
_VARIABLES = {name for path in PATHS.values() for name in path.variables}


def read_paths(text: str) -> list[FloatPath]:
    """Reads a list of paths; raises `OptionError` for an unknown one."""
    for name in text.split(","):
        require(name in PATHS, "paths", text, f"some of {', '.join(PATHS)}{did_you_mean(name, PATHS)}")
    return [PATHS[name] for name in dict.fromkeys(text.split(","))]
