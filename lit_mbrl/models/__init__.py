"""World models: those of observations speak the verbs of `WorldModel` (`Recurrent` and `Ensemble` choose one by
configuration), those of latent states the verbs of `LatentWorldModel`."""

from __future__ import annotations

from lit_mbrl.models.base import Objective, Step, TerminationRule, WorldModel, WorldModelFactory
from lit_mbrl.models.ensemble import EnsembleDynamics, EnsembleWorldModel
from lit_mbrl.models.factories import Ensemble, Recurrent
from lit_mbrl.models.fitting import Fit, GradientStep, fit
from lit_mbrl.models.latent import LatentWorldModel
from lit_mbrl.models.mdn import Mixture, MixtureDensityNetwork
from lit_mbrl.models.recurrent import RecurrentDynamics, RecurrentWorldModel, RewardModel, State, TerminationModel
from lit_mbrl.models.rssm import RSSM, Latent, Observed, Order

__all__ = [
    "RSSM",
    "Ensemble",
    "EnsembleDynamics",
    "EnsembleWorldModel",
    "Fit",
    "GradientStep",
    "Latent",
    "LatentWorldModel",
    "Mixture",
    "MixtureDensityNetwork",
    "Objective",
    "Observed",
    "Order",
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
