"""Networks: plain modules of tensors, used by models and algorithms alike."""

from __future__ import annotations

from lit_mbrl.networks.actors import DeterministicActor, TanhGaussianActor
from lit_mbrl.networks.conv import ConvDecoder, ConvEncoder, glorot_, quantized, to_uint8, to_unit
from lit_mbrl.networks.critics import QEnsemble
from lit_mbrl.networks.dreamer_actor import DreamerActor, DreamerGreedyActor
from lit_mbrl.networks.ensemble import EnsembleMLP
from lit_mbrl.networks.gaussian import DiagonalGaussian
from lit_mbrl.networks.mlp import MLP, orthogonal_
from lit_mbrl.networks.normalizer import RunningNormalizer

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "DeterministicActor",
    "DiagonalGaussian",
    "DreamerActor",
    "DreamerGreedyActor",
    "EnsembleMLP",
    "QEnsemble",
    "RunningNormalizer",
    "TanhGaussianActor",
    "glorot_",
    "orthogonal_",
    "quantized",
    "to_uint8",
    "to_unit",
]
