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
from lit_mbrl.networks.ensemble import ACTIVATIONS, Activation
from lit_mbrl.networks.mlp import orthogonal_
from lit_mbrl.utils.errors import require

_OPTION = "model.world_model"
# Where nothing terminates, the likelihood of a learned termination improves by percents for ever.
_CERTAIN = 1e-4


class RecurrentConfig(WorldModelFactory):
    """SVG's deterministic recurrent model (Amos et al. 2021, arXiv 2008.12775v3, section 4.2).

    Args:
        hidden_size: width of encoder, GRU and decoder, and of the hidden layers of reward and termination.
        layers: hidden layers of encoder, reward and termination.
        decoder_layers: hidden layers of the decoder (the public code: 0).
        gru_layers: stacked GRU layers.
        lr: Adam's learning rate of dynamics, reward and termination.
        detach_state: stop the dynamics' gradient at each predicted observation (the public code's choice).
        max_grad_norm: clip the dynamics' gradient to this norm.
        balance_terminations: weigh terminations in eq. 13 by their rarity in the batch (the public code's choice).
        orthogonal_init: orthogonal weights and zero biases for encoder and decoder (the public code's choice).
    """

    def __init__(
        self,
        hidden_size: int = 512,
        layers: int = 2,
        decoder_layers: int = 2,
        gru_layers: int = 2,
        lr: float = 1e-3,
        detach_state: bool = False,
        max_grad_norm: float | None = None,
        balance_terminations: bool = False,
        orthogonal_init: bool = False,
    ) -> None:
        for name, size in (("hidden_size", hidden_size), ("gru_layers", gru_layers)):
            require(size > 0, f"{_OPTION}.{name}", size, "an integer > 0")
        for name, count in (("layers", layers), ("decoder_layers", decoder_layers)):
            require(count >= 0, f"{_OPTION}.{name}", count, "an integer >= 0")
        require(lr > 0, f"{_OPTION}.lr", lr, "a number > 0")
        require(
            max_grad_norm is None or max_grad_norm > 0,
            f"{_OPTION}.max_grad_norm",
            max_grad_norm,
            "a number > 0 or null",
        )
        self.hidden_size, self.layers = hidden_size, layers
        self.decoder_layers, self.gru_layers = decoder_layers, gru_layers
        self.lr, self.detach_state, self.max_grad_norm = lr, detach_state, max_grad_norm
        self.balance_terminations, self.orthogonal_init = balance_terminations, orthogonal_init

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


class EnsembleConfig(WorldModelFactory):
    """One-step models: probabilistic as MBPO's (Janner et al. 2019, arXiv 1906.08253v3), or deterministic.

    Args:
        num_members: networks.
        num_elites: those that predict: the ones with the least hold-out error.
        hidden_sizes: hidden layers of each network.
        activation: swish, relu or tanh.
        probabilistic: predict mean and variance by maximum likelihood; otherwise the mean by squared error.
        weight_decay: of each layer in turn, the last one included; `decay / 2 |W|^2` in the loss.
        lr: Adam's learning rate.
        propagation: `"sample"` a probabilistic elite's prediction or take its `"mean"`.
        termination: `"known"` by the task's rule, `"learned"` by a head on observation and action, or `"auto"`: known
            where the task has a rule (`envs/tasks/terminations.py`).
        balance_terminations: weigh terminations by their rarity in the batch while learning the head.
    """

    def __init__(
        self,
        num_members: int = 7,
        num_elites: int = 5,
        hidden_sizes: list[int] | None = None,
        activation: Activation = "swish",
        probabilistic: bool = True,
        weight_decay: list[float] | None = None,
        lr: float = 1e-3,
        propagation: Propagation = "sample",
        termination: Literal["known", "learned", "auto"] = "auto",
        balance_terminations: bool = False,
    ) -> None:
        hidden_sizes = [200, 200, 200, 200] if hidden_sizes is None else list(hidden_sizes)
        require(num_members > 0, f"{_OPTION}.num_members", num_members, "an integer > 0")
        require(
            0 < num_elites <= num_members,
            f"{_OPTION}.num_elites",
            num_elites,
            f"an integer from 1 to {_OPTION}.num_members={num_members}",
        )
        require(
            all(size > 0 for size in hidden_sizes),
            f"{_OPTION}.hidden_sizes",
            hidden_sizes,
            "positive sizes, as [200,200]",
        )
        require(activation in ACTIVATIONS, f"{_OPTION}.activation", activation, "swish, relu or tanh")
        if weight_decay is None:
            weight_decay = default_decays(len(hidden_sizes) + 1)
        require(
            len(weight_decay) == len(hidden_sizes) + 1 and all(decay >= 0 for decay in weight_decay),
            f"{_OPTION}.weight_decay",
            weight_decay,
            f"{len(hidden_sizes) + 1} numbers >= 0, one for each of {_OPTION}.hidden_sizes and one for the last layer",
        )
        require(lr > 0, f"{_OPTION}.lr", lr, "a number > 0")
        require(propagation in ("sample", "mean"), f"{_OPTION}.propagation", propagation, "sample or mean")
        require(
            probabilistic or propagation == "mean",
            f"{_OPTION}.propagation",
            propagation,
            f"mean without {_OPTION}.probabilistic: there is no variance to sample from",
        )
        require_rule(termination, _no_rule)
        self.num_members, self.num_elites = num_members, num_elites
        self.hidden_sizes, self.activation = hidden_sizes, activation
        self.probabilistic, self.weight_decay, self.lr = probabilistic, list(weight_decay), lr
        self.propagation, self.termination = propagation, termination
        self.balance_terminations = balance_terminations

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
            self.weight_decay,
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
                weight_decay=dict(zip(dynamics.networks.weights, self.weight_decay, strict=True)),
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


def _no_rule(observation: Tensor, action: Tensor, following: Tensor) -> Tensor:
    raise AssertionError("stands for any rule while the option is checked")


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
