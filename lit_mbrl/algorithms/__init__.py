"""Algorithms: one file per paper, each a LightningModule."""

from lit_mbrl.algorithms.a2c import A2C
from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.algorithms.dqn import DQN
from lit_mbrl.algorithms.dreamer import Dreamer
from lit_mbrl.algorithms.dyna_q import DynaQ, DynaQPlus
from lit_mbrl.algorithms.i2a import I2A
from lit_mbrl.algorithms.maxent_exploration import MaxEntDreamer, MaxEntExploration
from lit_mbrl.algorithms.maxent_ppo import EntropyBonusPPO, FullMaxEntPPO, MaxEntBonusPPO, MaxEntPPO
from lit_mbrl.algorithms.mbpo import MBPO
from lit_mbrl.algorithms.me_trpo import METRPO
from lit_mbrl.algorithms.memr import MEMR
from lit_mbrl.algorithms.mve import MVE
from lit_mbrl.algorithms.naf import NAF
from lit_mbrl.algorithms.pets import PETS
from lit_mbrl.algorithms.pilco import PILCO
from lit_mbrl.algorithms.planet import PlaNet
from lit_mbrl.algorithms.policy_distillation import PolicyDistillation
from lit_mbrl.algorithms.poplin import POPLINA, POPLINP
from lit_mbrl.algorithms.ppo import PPO
from lit_mbrl.algorithms.revised_dreamer import RevisedDreamer
from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.algorithms.sac_svg import SACSVG
from lit_mbrl.algorithms.steve import MVEDDPG, STEVE, STEVESAC
from lit_mbrl.algorithms.td3 import TD3
from lit_mbrl.algorithms.tdm import TDM, TDMTD3
from lit_mbrl.algorithms.trpo import TRPO
from lit_mbrl.algorithms.world_models import WorldModels
from lit_mbrl.training.algorithm import Algorithm

__all__ = [
    "A2C",
    "DDPG",
    "DQN",
    "I2A",
    "MBPO",
    "MEMR",
    "METRPO",
    "MVE",
    "MVEDDPG",
    "NAF",
    "PETS",
    "PILCO",
    "POPLINA",
    "POPLINP",
    "PPO",
    "SAC",
    "SACSVG",
    "STEVE",
    "STEVESAC",
    "TD3",
    "TDM",
    "TDMTD3",
    "TRPO",
    "Algorithm",
    "Dreamer",
    "DynaQ",
    "DynaQPlus",
    "EntropyBonusPPO",
    "FullMaxEntPPO",
    "MaxEntBonusPPO",
    "MaxEntDreamer",
    "MaxEntExploration",
    "MaxEntPPO",
    "PlaNet",
    "PolicyDistillation",
    "RevisedDreamer",
    "WorldModels",
]
