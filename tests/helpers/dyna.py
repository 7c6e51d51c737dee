"""A world model whose every step is known, and small runs of MBPO and MEMR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_mbrl.algorithms import MBPO, MEMR
from lit_mbrl.data import OffPolicy
from lit_mbrl.envs import EnvConfig
from lit_mbrl.models import EnsembleConfig, ModelLoss, RecurrentConfig, Step, WorldModelFactory
from tests.helpers.runs import SHORT

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

    def objectives(self, model: Countdown) -> list[ModelLoss]:
        def loss(frames: Any) -> Tensor:
            return (frames["next", "reward"] - model.bias).square().mean()

        return [ModelLoss("dynamics", model, loss, 1e-2, error=lambda frames: loss(frames).unsqueeze(0))]


def ensemble() -> EnsembleConfig:
    return EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=[8])


SMALL: dict[str, Any] = {"hidden_sizes": [8, 8], "model_max_epochs": 3}
MEMR_SMALL: dict[str, Any] = SMALL | {"rollout_freq": 2, "segments": 3}
DYNA: dict[str, Callable[..., MBPO]] = {
    "mbpo": lambda **options: MBPO(world_model=ensemble(), **(SMALL | EVENTS | options)),
    "mbpo_recurrent": lambda **options: MBPO(
        world_model=RecurrentConfig(hidden_size=8, layers=1, decoder_layers=1, gru_layers=1),
        **(SMALL | EVENTS | options),
    ),
    "mbpo_known": lambda **options: MBPO(world_model=Known(), **(SMALL | EVENTS | options)),
    "memr": lambda **options: MEMR(world_model=ensemble(), **(MEMR_SMALL | EVENTS | options)),
    "memr_code": lambda **options: MEMR(variant="reference", world_model=ensemble(), **(MEMR_SMALL | EVENTS | options)),
    "memr_known": lambda **options: MEMR(world_model=Known(), **(MEMR_SMALL | EVENTS | options)),
}
DATA = {"env", "num_envs", "batch_size", "capacity", "frames_per_batch", "total_frames", "learning_starts"}


def make_dyna(env: str = "Pendulum-v1", num_envs: int = 1, **options: Any) -> OffPolicy:
    """A data module of a few frames."""
    return OffPolicy(EnvConfig(env, max_episode_steps=12, num_envs=num_envs), **(SHORT | options))


def make(name: str, **options: Any) -> tuple[MBPO, OffPolicy]:
    """An algorithm with a few fits and rollouts and its data module, for options of either."""
    of_data = {option: value for option, value in options.items() if option in DATA}
    return DYNA[name](**{option: options[option] for option in options.keys() - of_data}), make_dyna(**of_data)
