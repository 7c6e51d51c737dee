"""Planners: action sequences that are optimised when they are needed, without a policy."""

from lit_mbrl.planners.base import Objective, Planner, Search
from lit_mbrl.planners.cem import CEM, TruncatedCEM
from lit_mbrl.planners.icem import ICEM
from lit_mbrl.planners.mppi import MPPI

__all__ = ["CEM", "ICEM", "MPPI", "Objective", "Planner", "Search", "TruncatedCEM"]
