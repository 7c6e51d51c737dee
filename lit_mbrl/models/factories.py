"""World models by configuration: SVG's `RecurrentConfig` and MBPO's `EnsembleConfig`, for algorithms with a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.losses.world_model import dynamics_loss, reward_loss, termination_loss
from lit_mbrl.models.base import ModelLoss, TerminationRule, WorldModelFactory, require_rule
from lit_mbrl.models.ensemble import EnsembleDynamics, EnsembleWorldModel, Propagation, default_decays
from lit_mbrl.models.recurrent import RecurrentDynamics, RecurrentWorldModel, RewardModel, TerminationModel
from lit_mbrl.networks.ensemble import Activation
from lit_mbrl.networks.mlp import orthogonal_
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Sizes

_OPTION = "model.world_model"
# Where nothing terminates, the likelihood of a learned termination improves by percents for ever.
_CERTAIN = 1e-4


@options
class RecurrentConfig(WorldModelFactory):
    """SVG's deterministic recurrent model (Amos et al. 2021, arXiv 2008.12775v3, section 4.2)."""

    hidden_size: PositiveInt = 512
    """Width of encoder, GRU and decoder, and of the hidden layers of reward and termination."""
    layers: NonNegativeInt = 2
    """Hidden layers of encoder, reward and termination."""
    decoder_layers: NonNegativeInt = 2
    """Hidden layers of the decoder (the public code: 0)."""
    gru_layers: PositiveInt = 2
    """Stacked GRU layers."""
    lr: PositiveFloat = 1e-3
    """Adam's learning rate of dynamics, reward and termination."""
    detach_state: bool = False
    """Stop the dynamics' gradient at each predicted observation (the public code's choice)."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the dynamics' gradient to this norm."""
    balance_terminations: bool = False
    """Weigh terminations in eq. 13 by their rarity in the batch (the public code's choice)."""
    orthogonal_init: bool = False
    """Orthogonal weights and zero biases for encoder and decoder (the public code's choice)."""

    def build(self, observation_dim: int, action_dim: int, rule: TerminationRule | None = None) -> RecurrentWorldModel:
        """The model; it always learns its termination, as the paper's does."""
        head = [self.hidden_size] * self.layers
        model = RecurrentWorldModel(
            RecurrentDynamics(
                observation_dim, action_dim, self.hidden_size, self.layers, self.decoder_layers, self.gru_layers
            ),
            RewardModel(observation_dim, action_dim, head),
            TerminationModel(observation_dim, action_dim, head),
        )
        if self.orthogonal_init:
            orthogonal_(model.dynamics.encoder)
            orthogonal_(model.dynamics.decoder)
        return model

    def objectives(self, model: RecurrentWorldModel) -> list[ModelLoss]:
        """Reward (SVG eq. 11), termination (eq. 12-13) and dynamics (eq. 10), in Algorithm 1's order."""
        reward = partial(_reward_loss, model.reward_model)
        termination = partial(_termination_loss, model.termination_model, balance=self.balance_terminations)
        dynamics = partial(_dynamics_loss, model.dynamics, detach_state=self.detach_state)
        return [
            ModelLoss("reward", model.reward_model, reward, self.lr, error=_single(reward)),
            ModelLoss(
                "termination", model.termination_model, termination, self.lr, error=_single(termination, _CERTAIN)
            ),
            ModelLoss(
                "dynamics",
                model.dynamics,
                dynamics,
                self.lr,
                error=_single(dynamics),
                batch="sequences",
                repeat=True,
                max_grad_norm=self.max_grad_norm,
            ),
        ]


@options
class EnsembleConfig(WorldModelFactory):
    """One-step models: probabilistic as MBPO's (Janner et al. 2019, arXiv 1906.08253v3), or deterministic."""

    num_members: PositiveInt = 7
    """Networks."""
    num_elites: PositiveInt = 5
    """Networks that predict: the ones with the least hold-out error."""
    hidden_sizes: Sizes = (200, 200, 200, 200)
    """Hidden layers of each network."""
    activation: Activation = "swish"
    """Nonlinearity: swish, relu or tanh."""
    probabilistic: bool = True
    """Predict mean and variance by maximum likelihood; otherwise the mean by squared error."""
    scale_targets: bool = False
    """Count squared errors in standard deviations of the data of the fit (ME-TRPO); deterministic networks only."""
    weight_decay: tuple[NonNegativeFloat, ...] | None = None
    """Of each layer in turn, the last one included; `decay / 2 |W|^2` in the loss. Null: MBPO's."""
    lr: PositiveFloat = 1e-3
    """Adam's learning rate."""
    propagation: Propagation = "sample"
    """`"sample"` a probabilistic elite's prediction or take its `"mean"`."""
    termination: Literal["known", "learned", "auto"] = "auto"
    """`"known"` by the task's rule, `"learned"` by a head on observation and action, or `"auto"`: known where the task
    has a rule (`envs/tasks/terminations.py`)."""
    balance_terminations: bool = False
    """Weigh terminations by their rarity in the batch while learning the head."""

    def __post_init__(self) -> None:
        members, elites = f"{_OPTION}.num_members={self.num_members}", self.num_elites
        require(elites <= self.num_members, f"{_OPTION}.num_elites", elites, f"an integer from 1 to {members}")
        layers = len(self.hidden_sizes) + 1
        of_each = f"{layers} numbers >= 0, one for each of {_OPTION}.hidden_sizes and one for the last layer"
        require(len(self.decays) == layers, f"{_OPTION}.weight_decay", self.weight_decay, of_each)
        require(
            self.probabilistic or self.propagation == "mean",
            f"{_OPTION}.propagation",
            self.propagation,
            f"mean without {_OPTION}.probabilistic: there is no variance to sample from",
        )
        fixed = f"false with {_OPTION}.probabilistic, whose likelihood has scales of its own"
        require(not (self.scale_targets and self.probabilistic), f"{_OPTION}.scale_targets", True, fixed)

    @property
    def decays(self) -> tuple[float, ...]:
        """The weight decay of each layer in turn."""
        return default_decays(len(self.hidden_sizes) + 1) if self.weight_decay is None else self.weight_decay

    def build(self, observation_dim: int, action_dim: int, rule: TerminationRule | None = None) -> EnsembleWorldModel:
        """The model; raises `OptionError` if the rule is wanted and there is none."""
        rule = require_rule(self.termination, rule)
        dynamics = EnsembleDynamics(
            observation_dim,
            action_dim,
            self.num_members,
            self.num_elites,
            self.hidden_sizes,
            self.activation,
            self.probabilistic,
            self.decays,
            scale_targets=self.scale_targets,
        )
        head = None if rule is not None else TerminationModel(observation_dim, action_dim, self.hidden_sizes[:2])
        return EnsembleWorldModel(dynamics, rule, head, self.propagation)

    def objectives(self, model: EnsembleWorldModel) -> list[ModelLoss]:
        """The termination where it is learned, then the networks."""
        found = []
        if model.termination_model is not None:
            loss = partial(_termination_loss, model.termination_model, balance=self.balance_terminations)
            found.append(
                ModelLoss("termination", model.termination_model, loss, self.lr, error=_single(loss, _CERTAIN))
            )
        dynamics = model.dynamics
        found.append(
            ModelLoss(
                "dynamics",
                dynamics,
                dynamics.bootstrapped_loss,
                self.lr,
                error=dynamics.error,
                # A training step's steps each need a batch of their own, which is what sequences of one transition are.
                batch="sequences",
                length=1,
                repeat=True,
                members=self.num_members,
                member_loss=dynamics.data_loss,
                member_parameters=list(dynamics.networks.parameters()),
                weight_decay=dict(zip(dynamics.networks.weights, self.decays, strict=True)),
                before_fit=dynamics.fit_scaler,
                after_fit=dynamics.set_elites,
            )
        )
        return found

    def check_rounds(self) -> None:
        require(
            self.num_elites == self.num_members,
            f"{_OPTION}.num_elites",
            self.num_elites,
            f"{_OPTION}.num_members={self.num_members} here: a model trained step by step has no hold-out to rank by",
        )


def _single(loss: Callable[[TensorDictBase], Tensor], least: float = 0.0) -> Callable[[TensorDictBase], Tensor]:
    """A loss as the hold-out error `[1]` of the only member; what is below `least` counts as that."""

    def error(frames: TensorDictBase) -> Tensor:
        return loss(frames).clamp(min=least).unsqueeze(0)

    return error


def _reward_loss(model: RewardModel, batch: TensorDictBase) -> Tensor:
    """Squared error of the predicted reward (SVG eq. 11)."""
    return reward_loss(model(batch["observation"], batch["action"]), batch["next", "reward"]).mean()


def _termination_loss(model: TerminationModel, batch: TensorDictBase, balance: bool) -> Tensor:
    """Negative log-likelihood of terminations, time limits excluded (SVG eq. 12-13)."""
    logit = model(batch["observation"], batch["action"])
    return termination_loss(logit, batch["next", "terminated"], balance).mean()


def _dynamics_loss(model: RecurrentDynamics, batch: TensorDictBase, detach_state: bool) -> Tensor:
    """Multi-step squared error of predicted observations, summed over the steps (SVG eq. 10)."""
    predicted = model.unroll(batch["observation"][:, 0], batch["action"], detach_state)
    return dynamics_loss(predicted, batch["next", "observation"]).sum(1).mean()
