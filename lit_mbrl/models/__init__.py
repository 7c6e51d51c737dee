"""World models: every one speaks the verbs of `WorldModel`."""

from __future__ import annotations

from lit_mbrl.models.base import WorldModel
from lit_mbrl.models.recurrent import RecurrentDynamics, RecurrentWorldModel, RewardModel, State, TerminationModel

__all__ = [
    "RecurrentDynamics",
    "RecurrentWorldModel",
    "RewardModel",
    "State",
    "TerminationModel",
    "WorldModel",
]
