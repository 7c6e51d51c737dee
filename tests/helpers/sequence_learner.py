"""A small algorithm that learns from sequences and carries a state while it acts, and data for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms import Algorithm
from lit_mbrl.data import SequenceReplay
from lit_mbrl.envs import EnvConfig, PixelConfig
from lit_mbrl.training.update import Update
from tests.helpers.toys import PICTURE

LIGHT = "InvertedPendulumSwingupBulletEnv-v0"
SHORT: dict[str, Any] = {
    "total_frames": 60,
    "epoch_frames": 20,
    "learning_starts": 24,
    "frames_per_batch": 4,
    "utd_ratio": 0.5,
    "batch_size": 3,
    "sequence_length": 4,
    "eval_episodes": 2,
    "storage": "memory",
}


class Carried(nn.Module):
    """The latent state between the steps of an episode, with the last action in it."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None

    def advance(self, seen: Tensor, is_init: Tensor) -> Tensor:
        state = torch.zeros_like(seen) if self.state is None else self.state.to(seen)
        self.state = 0.5 * torch.where(is_init, torch.zeros_like(state), state) + seen
        return self.state

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.state is None else self.state

    def set_extra_state(self, state: Tensor) -> None:
        self.state = state if state.numel() else None


class Remembers(Algorithm):
    """Predicts the reward from the picture; acts on a running sum of what it has seen, with noise."""

    pixels = None
    continuous_actions = False
    learns_from = "sequences"

    def build(self, spec: Any) -> None:
        self.encoder = nn.Linear(spec.observation_dim, 4)
        self.reward, self.actor = nn.Linear(4, 1), nn.Linear(4, spec.action_dim)
        self.carried = Carried()

    def updates(self) -> Iterator[Update]:
        yield Update("model", [self.encoder, self.reward], self.model_loss, lr=1e-3, batch="sequences")

    def encode(self, observation: Tensor) -> Tensor:
        return self.encoder(observation.flatten(-len(self.spec.observation_shape)).float() / 255)

    def model_loss(self, sequences: TensorDictBase) -> Tensor:
        assert sequences.batch_dims == 2
        return (self.reward(self.encode(sequences["observation"])) - sequences["reward"]).square().mean()

    def _action(self, state: Tensor, noise: float) -> Tensor:
        logits = self.actor(state)
        logits = logits + noise * torch.randn_like(logits)
        return logits.argmax(-1) if self.spec.discrete else logits.tanh()

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self._action(self.carried.advance(self.encode(observation), is_init), 0.3)

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        carried = Carried()
        return lambda seen, is_init: self._action(carried.advance(self.encode(seen), is_init), 0.0)


def make_sequences(env: str = PICTURE, num_envs: int = 1, workers: bool = False, **options: Any) -> SequenceReplay:
    """A data module of a few frames, with several episodes, of pictures."""
    pixels = PixelConfig(size=8) if env != "Pendulum-v1" else None
    config = EnvConfig(env, max_episode_steps=12, num_envs=num_envs, workers=workers, pixels=pixels)
    return SequenceReplay(config, **(SHORT | options))
