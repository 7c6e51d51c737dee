"""Networks: plain modules of tensors, used by models and algorithms alike."""

from __future__ import annotations

from lit_mbrl.networks.actors import DeterministicActor, TanhGaussianActor
from lit_mbrl.networks.advantage import NormalizedAdvantage
from lit_mbrl.networks.conv import ConvDecoder, ConvEncoder, glorot_, normalize_image, quantize_image, to_uint8
from lit_mbrl.networks.conv_lstm import ConvLSTM
from lit_mbrl.networks.critics import BatchedQEnsemble, QEnsemble
from lit_mbrl.networks.dreamer_actor import DeterministicLatentActor, DreamerActor
from lit_mbrl.networks.ensemble import EnsembleMLP
from lit_mbrl.networks.gaussian import DiagonalGaussian
from lit_mbrl.networks.grid import Grid, GridEncoder, grid_convolutions, orthogonal_layer
from lit_mbrl.networks.impala import Impala, ImpalaEncoder
from lit_mbrl.networks.mlp import MLP, orthogonal_
from lit_mbrl.networks.normalizer import RunningNormalizer
from lit_mbrl.networks.policies import ActorCritic, CategoricalActor, GaussianActor, orthogonal_mlp
from lit_mbrl.networks.reward_normalizer import RewardNormalizer
from lit_mbrl.networks.rollout_encoder import ImaginationEncoder, RolloutEncoder

__all__ = [
    "MLP",
    "ActorCritic",
    "BatchedQEnsemble",
    "CategoricalActor",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLSTM",
    "DeterministicActor",
    "DeterministicLatentActor",
    "DiagonalGaussian",
    "DreamerActor",
    "EnsembleMLP",
    "GaussianActor",
    "Grid",
    "GridEncoder",
    "ImaginationEncoder",
    "Impala",
    "ImpalaEncoder",
    "NormalizedAdvantage",
    "QEnsemble",
    "RewardNormalizer",
    "RolloutEncoder",
    "RunningNormalizer",
    "TanhGaussianActor",
    "glorot_",
    "grid_convolutions",
    "normalize_image",
    "orthogonal_",
    "orthogonal_layer",
    "orthogonal_mlp",
    "quantize_image",
    "to_uint8",
]
