"""World models: every one speaks the verbs of `WorldModel`; `Recurrent` and `Ensemble` choose one by configuration."""

from __future__ import annotations

from lit_mbrl.models.base import Objective, Step, TerminationRule, WorldModel, WorldModelFactory
from lit_mbrl.models.ensemble import EnsembleDynamics, EnsembleWorldModel
from lit_mbrl.models.factories import Ensemble, Recurrent
from lit_mbrl.models.fitting import Descend, Fit, fit
from lit_mbrl.models.recurrent import RecurrentDynamics, RecurrentWorldModel, RewardModel, State, TerminationModel

__all__ = [
    "Descend",
    "Ensemble",
    "EnsembleDynamics",
    "EnsembleWorldModel",
    "Fit",
    "Objective",
    "Recurrent",
    "RecurrentDynamics",
    "RecurrentWorldModel",
    "RewardModel",
    "State",
    "Step",
    "TerminationModel",
    "TerminationRule",
    "WorldModel",
    "WorldModelFactory",
    "fit",
]
