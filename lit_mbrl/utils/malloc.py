"""Memory that is freed and wanted again a moment later, hundreds of megabytes at a time."""

from __future__ import annotations

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for whoever allocates next, also blocks of more than 32 MB.

    Those it would give back to the system and get again, empty, page by page. The activations of convolutions are such
    blocks, and the system's zeroing of their pages took a quarter of an IMPALA update's time. The process then stays as
    large as it has ever been.

    Returns:
        Whether there is such a choice here.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, _LARGE) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
