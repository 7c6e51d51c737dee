"""Sources and machine of a measured return."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import lit_mbrl
from lit_mbrl.app.experiment.paths import FloatPath
from lit_mbrl.utils.errors import UsageError

ROOT = Path(lit_mbrl.__file__).resolve().parent.parent
_PACKAGE = "lit_mbrl"
_NOT_TRAINING = (
    "lit_mbrl/app/commands",
    "lit_mbrl/app/experiment",
    "lit_mbrl/papers",
    "lit_mbrl/reports",
    "lit_mbrl/utils/pool.py",
)
_VERSIONS = ("torch", "lightning", "torchrl", "tensordict", "gymnasium", "numpy")
# The instruction sets by which torch and MKL choose their kernels.
_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve")
# Products and functions of the sizes of a laptop config's networks: their bytes tell whether two paths round alike.
_PROBE = """
import hashlib, json, torch
torch.set_num_threads(1)
x, digest = torch.randn(128, 4, generator=torch.Generator().manual_seed(0)), hashlib.sha256()
for size in (64, 64, 256, 256, 1):
    w = torch.randn(x.shape[1], size, generator=torch.Generator().manual_seed(size)) / x.shape[1] ** 0.5
    x = torch.tanh(x @ w) + torch.exp(-x.square().sum(1, keepdim=True))
    digest.update(x.numpy().tobytes())
found = {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "mkl": torch.backends.mkl.is_available()}
print(json.dumps(found | {"rounding": digest.hexdigest()[:8]}))
"""


def commit() -> str:
    """The last commit that changed the sources of training; `+` and a checksum if they have changed since.

    Without git it is that checksum alone.
    """
    training = [_PACKAGE, *(f":(exclude){path}" for path in _NOT_TRAINING)]
    name = _git("log", "-1", "--format=%H", "--", *training)
    if name and not _git("status", "--porcelain", "--untracked-files=all", "--", *training):
        return name
    digest = hashlib.sha256()
    for path in sorted((ROOT / _PACKAGE).rglob("*.py")):
        name_of_file = path.relative_to(ROOT).as_posix()
        if not name_of_file.startswith(_NOT_TRAINING):
            digest.update(name_of_file.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{name}+{digest.hexdigest()[:8]}"


def short(commit: str) -> str:
    """A commit in seven digits."""
    name, plus, changed = commit.partition("+")
    return f"{name[:7]}{plus}{changed}"


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of lit_mbrl, Python and the packages that compute."""
    found = {"lit_mbrl": lit_mbrl.__version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in _VERSIONS}


def processor() -> dict[str, Any]:
    """Name, number of usable cores and the flags that matter."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass  # another operating system
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "name": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "flags": [flag for flag in _FLAGS if flag in flags],
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def probe(path: FloatPath) -> dict[str, Any]:
    """Returns a path's kernels in torch (`cpu_capability`), and a checksum of how they round, from a process on it.

    Raises:
        UsageError: if torch cannot be imported there.
    """
    done = subprocess.run([sys.executable, "-c", _PROBE], env=path.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise UsageError(f"--paths={path.name}: torch cannot be imported there: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)
