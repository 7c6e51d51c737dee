"""World models: those of observations speak the verbs of `WorldModel` (`RecurrentConfig` and `EnsembleConfig` choose
one by configuration; `SplitEnsemble` is STEVE's), those of latent states the verbs of `LatentWorldModel`."""

from __future__ import annotations

from lit_mbrl.models.base import ModelLoss, Step, TerminationRule, WorldModel, WorldModelFactory
from lit_mbrl.models.ensemble import EnsembleDynamics, EnsembleWorldModel
from lit_mbrl.models.factories import EnsembleConfig, RecurrentConfig
from lit_mbrl.models.fitting import FitResult, GradientStep, fit, fit_epochs
from lit_mbrl.models.frame_model import Cells, CopyModel, FrameModel, FrameModelConfig, to_planes
from lit_mbrl.models.frame_rollouts import FrameRollouts, imagine_frames
from lit_mbrl.models.latent import LatentWorldModel
from lit_mbrl.models.mdn import Mixture, MixtureDensityNetwork
from lit_mbrl.models.mdn_rnn import MDNRNN, Memory
from lit_mbrl.models.open_loop import open_loop_errors
from lit_mbrl.models.recurrent import RecurrentDynamics, RecurrentWorldModel, RewardModel, State, TerminationModel
from lit_mbrl.models.rssm import RSSM, Latent, Posterior, TimeOrder
from lit_mbrl.models.split_ensemble import SplitEnsemble, SplitEnsembleConfig
from lit_mbrl.models.task_ensemble import TaskEnsemble
from lit_mbrl.models.vae import VAE

__all__ = [
    "MDNRNN",
    "RSSM",
    "VAE",
    "Cells",
    "CopyModel",
    "EnsembleConfig",
    "EnsembleDynamics",
    "EnsembleWorldModel",
    "FitResult",
    "FrameModel",
    "FrameModelConfig",
    "FrameRollouts",
    "GradientStep",
    "Latent",
    "LatentWorldModel",
    "Memory",
    "Mixture",
    "MixtureDensityNetwork",
    "ModelLoss",
    "Posterior",
    "RecurrentConfig",
    "RecurrentDynamics",
    "RecurrentWorldModel",
    "RewardModel",
    "SplitEnsemble",
    "SplitEnsembleConfig",
    "State",
    "Step",
    "TaskEnsemble",
    "TerminationModel",
    "TerminationRule",
    "TimeOrder",
    "WorldModel",
    "WorldModelFactory",
    "fit",
    "fit_epochs",
    "imagine_frames",
    "open_loop_errors",
    "to_planes",
]
