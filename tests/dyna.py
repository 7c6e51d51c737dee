"""A world model whose every step is known, and small Dyna runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbrl.algorithms import MBPO, MEMR
from lit_mbrl.data import Dyna, PrioritizedDyna
from lit_mbrl.envs import EnvConfig
from lit_mbrl.models import Ensemble, Objective, Recurrent, Step, WorldModelFactory
from tests.runs import SHORT

IMAGINED = 777.0  # the reward of every imagined transition, which no environment gives
EVENTS = {"model_train_freq": 8, "rollout_batch_size": 20, "model_epoch": 16}


class Countdown(nn.Module):
    """Each step takes 1 from every number of the observation; the episode ends when the first would fall below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def initial(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return observation, torch.zeros(len(observation), 1)

    def observation(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]

    def step(self, state: tuple[Tensor, Tensor], action: Tensor) -> Step:
        following = state[0] - 1.0
        over = torch.where(following[:, :1] < 0, torch.inf, -torch.inf)
        return Step((following, state[1] + 1.0), torch.full_like(over, IMAGINED), over)


class Known(WorldModelFactory):
    """Makes `Countdown`, and fits a single number to the rewards."""

    def build(self, observation_dim: int, action_dim: int, rule: Any = None) -> Countdown:
        return Countdown()

    def objectives(self, model: Countdown) -> list[Objective]:
        def loss(frames: Any) -> Tensor:
            return (frames["next", "reward"] - model.bias).square().mean()

        return [Objective("dynamics", model, loss, 1e-2, error=lambda frames: loss(frames).unsqueeze(0))]


def ensemble() -> Ensemble:
    return Ensemble(num_members=3, num_elites=2, hidden_sizes=[8])


SMALL: dict[str, Any] = {"hidden_sizes": [8, 8], "model_max_epochs": 3}
DYNA: dict[str, tuple[Callable[[], MBPO], type[Dyna]]] = {
    "mbpo": (lambda: MBPO(world_model=ensemble(), **SMALL), Dyna),
    "mbpo_recurrent": (lambda: MBPO(world_model=Recurrent(8, 1, 1, 1), **SMALL), Dyna),
    "mbpo_known": (lambda: MBPO(world_model=Known(), **SMALL), Dyna),
    "memr": (lambda: MEMR(world_model=ensemble(), **SMALL), PrioritizedDyna),
    "memr_code": (lambda: MEMR(objective="code", world_model=ensemble(), **SMALL), PrioritizedDyna),
    "memr_known": (lambda: MEMR(world_model=Known(), **SMALL), PrioritizedDyna),
}


def make_dyna(kind: type[Dyna] = Dyna, env: str = "Pendulum-v1", num_envs: int = 1, **options: Any) -> Dyna:
    """A data module of a few frames, fits and rollouts."""
    if kind is PrioritizedDyna:
        options = {"rollout_freq": 2, "segments": 3} | options
    return kind(EnvConfig(env, max_episode_steps=12, num_envs=num_envs), **(SHORT | EVENTS | options))


def make(name: str, **options: Any) -> tuple[MBPO, Dyna]:
    """An algorithm and its data module."""
    algorithm, kind = DYNA[name]
    return algorithm(), make_dyna(kind, **options)
