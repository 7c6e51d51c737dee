"""STEVE and MVE on Pendulum with its true equations in the place of learned models: what a perfect model would gain.

    python -m lit_mbrl fit --config conf/steve.yaml --model=benchmarks.studies.true_model.TrueSTEVE
    python -m lit_mbrl fit --config conf/mve_ddpg.yaml --model=benchmarks.studies.true_model.TrueMVEDDPG

One rollout, which is the true one, so that the candidates' variance is that of the critics alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.studies.critic_lag import observe, pendulum
from lit_mbrl.algorithms import MVEDDPG, STEVE
from lit_mbrl.models import Step
from lit_mbrl.training.algorithm import Update


class TruePendulum(nn.Module):
    """Pendulum-v1 as the only member of STEVE's model."""

    transitions, rewards, termination_model = 1, 1, None

    def initial(self, observation: Tensor) -> Tensor:
        """`[B, 3]`."""
        return observation

    def observation(self, state: Tensor) -> Tensor:
        """`[B, 3]`."""
        return state

    def step(self, state: Tensor, action: Tensor) -> Step[Tensor]:
        """Returns the transition of the environment at `state [B, 3]`, with `action [B, 1]` in [-1, 1]."""
        cos, sin, speed = state.unbind(-1)
        angle, speed, reward = pendulum(torch.atan2(sin, cos), speed, action.squeeze(-1))
        return Step(observe(angle, speed), reward.unsqueeze(-1), self.termination_logit(state, action))

    def termination_logit(self, state: Tensor, action: Tensor) -> Tensor:
        """`[B, 1]`: never."""
        return torch.full_like(action, -torch.inf)

    def unroll(self, observation: Tensor, actions: Tensor) -> Tensor:
        """`[B, T, 3]`."""
        states = []
        for action in actions.unbind(1):
            observation = self.step(observation, action).state
            states.append(observation)
        return torch.stack(states, 1)


class _True(STEVE):
    def build(self, spec: Any) -> None:
        super().build(spec)
        self.world_model: Any = TruePendulum()

    def model_updates(self) -> Iterator[Update]:
        yield from ()


class TrueSTEVE(_True):
    """STEVE whose model is Pendulum itself."""


class TrueMVEDDPG(_True, MVEDDPG):
    """MVE on DDPG whose model is Pendulum itself."""
