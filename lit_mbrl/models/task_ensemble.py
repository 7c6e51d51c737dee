"""PETS' ensemble: it reads features of the task and predicts observations, the reward only where it has to.

    [sin and cos of angles, other numbers] of x_t, u_t --scale--> member i --> mean_i, log var_i of
    [x_{t+1} - x_t, or x_{t+1} itself where the task says so; r_t where the reward is learned]

Chua et al. 2018 (arXiv 1805.12114v2): section 4 for the model, the public code's tasks for the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.losses.ensemble import gaussian_nll
from lit_mbrl.models.base import ModelLoss
from lit_mbrl.models.ensemble import EnsembleDynamics, default_decays
from lit_mbrl.networks.ensemble import Activation


class FeatureSpec(Protocol):
    """Positions in the observation: read as sine and cosine, predicted as they are, not read (`envs.Features`)."""

    @property
    def angles(self) -> tuple[int, ...]: ...

    @property
    def absolute(self) -> tuple[int, ...]: ...

    @property
    def unused(self) -> tuple[int, ...]: ...


class TaskEnsemble(EnsembleDynamics):
    """A probabilistic ensemble that reads and predicts what a task says.

    Args:
        spec: of the task's observations; None: all are read as they are, and of all the change is predicted.
        predict_reward: predict the reward, too.
        members: number `E` of networks.
        hidden_sizes: hidden layers of each network.
        activation: between them.
        weight_decay: of each layer, the last one included; None: `default_decays`.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        spec: FeatureSpec | None = None,
        predict_reward: bool = False,
        members: int = 5,
        hidden_sizes: Sequence[int] = (200, 200, 200),
        activation: Activation = "swish",
        weight_decay: Sequence[float] | None = None,
    ) -> None:
        angles, absolute, unused = ((), (), ()) if spec is None else (spec.angles, spec.absolute, spec.unused)
        read = [i for i in range(observation_dim) if i not in (*angles, *unused)]
        super().__init__(
            observation_dim,
            action_dim,
            members,
            members,
            hidden_sizes,
            activation,
            True,
            default_decays(len(hidden_sizes) + 1) if weight_decay is None else weight_decay,
            inputs=len(read) + 2 * len(angles) + action_dim,
            outputs=observation_dim + predict_reward,
        )
        self.predict_reward = predict_reward
        self._as_it_is = len(read) == observation_dim
        kept = torch.ones(observation_dim)
        kept[list(absolute)] = 0.0  # of these the prediction is not added to what was
        self._read: Tensor
        self._angles: Tensor
        self._kept: Tensor
        self.register_buffer("_read", torch.tensor(read, dtype=torch.long), persistent=False)
        self.register_buffer("_angles", torch.tensor(angles, dtype=torch.long), persistent=False)
        self.register_buffer("_kept", kept, persistent=False)

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """Computes what the networks read, `[..., inputs]`."""
        if self._as_it_is:
            return torch.cat([observation, action], dim=-1)
        angles = observation.index_select(-1, self._angles)
        return torch.cat([angles.sin(), angles.cos(), observation.index_select(-1, self._read), action], dim=-1)

    def targets(self, frames: TensorDictBase) -> Tensor:
        """Computes what the networks shall predict, `[..., D]`."""
        change = frames["next", "observation"] - self._kept * frames["observation"]
        return torch.cat([change, frames["next", "reward"]], dim=-1) if self.predict_reward else change

    def advance(self, observation: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the next observation `[..., O]` and the predicted reward `[..., 1]`, if there is one.

        Args:
            observation: `[..., O]`.
            output: of the networks, or a sample of it, `[..., D]`.
        """
        if not self.predict_reward:
            return torch.addcmul(output, observation, self._kept), None
        return torch.addcmul(output[..., :-1], observation, self._kept), output[..., -1:]

    @torch.no_grad()
    def mean_nll(self, frames: TensorDictBase) -> Tensor:
        """Computes `gaussian_nll` of frames `[N]`, its mean over members and frames, a scalar."""
        mean, log_var = self(frames["observation"], frames["action"])
        assert log_var is not None
        return gaussian_nll(mean, log_var, self.targets(frames).expand_as(mean)).mean()

    def objective(self, lr: float, max_grad_norm: float | None = None) -> ModelLoss:
        """Returns the loss that trains it."""
        return ModelLoss(
            "dynamics",
            self,
            self.bootstrapped_loss,
            lr,
            error=self.error,
            max_grad_norm=max_grad_norm,
            members=self.members,
            member_loss=self.data_loss,
            member_parameters=list(self.networks.parameters()),
            weight_decay=dict(zip(self.networks.weights, self.weight_decay, strict=True)),
            before_fit=self.fit_scaler,
        )
