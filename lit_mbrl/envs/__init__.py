"""Environments: one name in, a Gymnasium environment (`make_gym`) or a batched TorchRL one (`VectorEnv`) out.

Everything but `vector.py` is free of torch, so that worker processes stay small; hence `VectorEnv` is imported on
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lit_mbrl.envs.inspection import describe
from lit_mbrl.envs.make import make_gym, registered_variants
from lit_mbrl.envs.spec import EnvConfig, PixelConfig, Spec
from lit_mbrl.envs.tasks import sokoban  # noqa: F401  registers its id

if TYPE_CHECKING:
    from lit_mbrl.envs.vector import VectorEnv

__all__ = ["EnvConfig", "PixelConfig", "Spec", "VectorEnv", "describe", "make_gym", "registered_variants"]


def __getattr__(name: str) -> Any:
    if name == "VectorEnv":
        from lit_mbrl.envs.vector import VectorEnv

        return VectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
