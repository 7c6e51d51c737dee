"""Planners: action sequences that are optimised when they are needed, without a policy."""

from lit_mbrl.planners.base import Objective, Planner, Search
from lit_mbrl.planners.cem import CEM, TruncatedCEM
from lit_mbrl.planners.icem import ICEM
from lit_mbrl.planners.ilqr import ILQR
from lit_mbrl.planners.model_objective import ModelObjective, model_objective
from lit_mbrl.planners.mppi import MPPI

__all__ = [
    "CEM",
    "ICEM",
    "ILQR",
    "MPPI",
    "ModelObjective",
    "Objective",
    "Planner",
    "Search",
    "TruncatedCEM",
    "model_objective",
]
