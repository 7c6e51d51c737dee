"""The deterministic recurrent world model of SVG section 4.2 (Amos et al. 2021, arXiv 2008.12775v3).

    x_1 ----+-----------(+)--> x_2 ----+-----------(+)--> x_3     residual: x_{t+1} = x_t + dec(h_{t+1})
            |            |             |            |
    u_1 -> enc -> GRU -> dec   u_2 -> enc -> GRU -> dec
                   |                          ^
    h_1 = 0 ------>+----------- h_2 ----------+

Readings where the paper is open: the decoder sees the top GRU layer (as the output of `nn.GRU`), and the encoder ends
in a linear layer as wide as the GRU. "2-layer MLPs" are two hidden layers (table 3); the public code's decoder is a
single linear layer, which is `decoder_layers=0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_mbrl.models.base import Step
from lit_mbrl.networks.mlp import MLP


class State(NamedTuple):
    """State of the recurrent model: the observation `[B, O]` and all GRU layers side by side `[B, D]`."""

    observation: Tensor
    deter: Tensor


class RecurrentDynamics(nn.Module):
    """`z = enc(x, u)`, `h' = GRU(z, h)`, `x' = x + dec(h')`.

    Args:
        hidden_size: width of encoder, decoder and of each GRU layer; `D = gru_layers * hidden_size`.
        encoder_layers: hidden layers of the encoder.
        decoder_layers: hidden layers of the decoder.
        gru_layers: stacked GRU cells.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden_size: int = 512,
        encoder_layers: int = 2,
        decoder_layers: int = 2,
        gru_layers: int = 2,
    ) -> None:
        super().__init__()
        self.encoder = MLP(observation_dim + action_dim, [hidden_size] * encoder_layers, hidden_size)
        self.cells = nn.ModuleList(nn.GRUCell(hidden_size, hidden_size) for _ in range(gru_layers))
        self.decoder = MLP(hidden_size, [hidden_size] * decoder_layers, observation_dim)
        self.deter_size = gru_layers * hidden_size

    def encode(self, observation: Tensor, action: Tensor) -> Tensor:
        """Observation `[B, O]` and action `[B, A]` to the input `[B, hidden_size]` of the GRU."""
        return self.encoder(torch.cat([observation, action], dim=-1))

    def initial(self, observation: Tensor) -> State:
        """Starts at `observation [B, O]` with `h_1 = 0`."""
        return State(observation, observation.new_zeros(observation.shape[0], self.deter_size))

    def step(self, state: State, action: Tensor) -> State:
        """One step with `action [B, A]`."""
        layers = state.deter.chunk(len(self.cells), dim=-1)  # [B, D] -> gru_layers x [B, hidden_size]
        observation, layers = self._advance(state.observation, layers, action)
        return State(observation, torch.cat(layers, dim=-1))

    def unroll(self, observation: Tensor, actions: Tensor, detach_state: bool = False) -> Tensor:
        """Predicts autoregressively from the first observation only, with the true actions.

        Args:
            observation: `x_1 [B, O]`.
            actions: `u_1 ... u_T [B, T, A]`.
            detach_state: stops the gradient through the predicted observation between steps, but not through the GRU's
                state: the public code's choice. The paper names no stop, hence the default.

        Returns:
            `x_2 ... x_{T+1} [B, T, O]`.
        """
        layers = self.initial(observation).deter.chunk(len(self.cells), dim=-1)
        predictions: list[Tensor] = []
        for action in actions.unbind(1):
            observation, layers = self._advance(observation, layers, action)
            predictions.append(observation)
            if detach_state:
                observation = observation.detach()
        return torch.stack(predictions, dim=1)

    def _advance(
        self, observation: Tensor, layers: Sequence[Tensor], action: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        feature = self.encode(observation, action)
        advanced: list[Tensor] = []
        for cell, hidden in zip(self.cells, layers, strict=True):
            feature = cell(feature, hidden)
            advanced.append(feature)
        return observation + self.decoder(feature), tuple(advanced)


class _Head(nn.Module):
    """An MLP of observation `[..., O]` and action `[..., A]` to one number `[..., 1]`."""

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = MLP(observation_dim + action_dim, hidden, 1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([observation, action], dim=-1))


class RewardModel(_Head):
    """`r(x, u) [..., 1]` in the units of the environment's reward (SVG eq. 11)."""


class TerminationModel(_Head):
    """Logit `[..., 1]` of the probability `d(x, u)` that the episode terminates after `(x, u)` (SVG eq. 12, 13)."""


class RecurrentWorldModel(nn.Module):
    """`RecurrentDynamics`, reward and termination as one `WorldModel`; both heads see `(x_t, u_t)`, never `h_t`."""

    def __init__(self, dynamics: RecurrentDynamics, reward: RewardModel, termination: TerminationModel) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.reward_model = reward
        self.termination_model = termination

    def initial(self, observation: Tensor) -> State:
        """`[B, O]` to the state with `h_1 = 0`."""
        return self.dynamics.initial(observation)

    def step(self, state: State, action: Tensor) -> Step[State]:
        """The transition that `action [B, A]` makes."""
        reward = self.reward_model(state.observation, action)
        return Step(self.dynamics.step(state, action), reward, self.termination_logit(state, action))

    def termination_logit(self, state: State, action: Tensor) -> Tensor:
        """`[B, 1]` of the termination after `action [B, A]`."""
        return self.termination_model(state.observation, action)

    def observation(self, state: State) -> Tensor:
        """`[B, O]`."""
        return state.observation

    def unroll(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Open-loop prediction from `[B, O]` with actions `[B, T, A]`: `[B, T, O]`."""
        return self.dynamics.unroll(observation, actions)
