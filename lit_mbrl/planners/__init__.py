"""Planners: action sequences that are optimised when they are needed, without a policy."""

from lit_mbrl.planners.cem import CEM

__all__ = ["CEM"]
