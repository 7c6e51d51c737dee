"""A user's own TorchRL environment, transform, sampler and replay buffer."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Composite, LazyTensorStorage, ReplayBuffer, Unbounded
from torchrl.data.replay_buffers import RandomSampler
from torchrl.envs import EnvBase, Transform


class Point(EnvBase):
    """A point on a line that is pushed by at most `force`; it fell off beyond 1.

    Args:
        force: largest acceleration.
        batch: of copies, for a test of what is refused.
    """

    def __init__(self, force: float = 0.5, batch: tuple[int, ...] = ()) -> None:
        super().__init__(device=torch.device("cpu"), batch_size=batch)
        self.observation_spec = Composite(observation=Unbounded((*batch, 2)), shape=batch)
        self.action_spec = Bounded(-force, force, (*batch, 1))
        self.reward_spec = Unbounded((*batch, 1))
        self._generator = torch.Generator()

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        start = torch.rand(*self.batch_size, 2, generator=self._generator) - 0.5
        return TensorDict({"observation": start}, self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        position, speed = tensordict["observation"].unbind(-1)
        speed = speed + 0.1 * tensordict["action"].squeeze(-1)
        position = position + 0.1 * speed + 0.01 * torch.randn((), generator=self._generator)
        fell = (position.abs() > 1).unsqueeze(-1)
        following = {"observation": torch.stack([position, speed], -1), "reward": -position.square().unsqueeze(-1)}
        return TensorDict(following | {"done": fell, "terminated": fell}, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        self._generator.manual_seed(seed or 0)


class ExactPoint(Point):
    """The same, and resumes exactly."""

    def get_env_state(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state().numpy()}

    def set_env_state(self, state: dict[str, Any]) -> None:
        self._generator.set_state(torch.as_tensor(state["generator"]))


def make_point(force: float) -> Point:
    """A function that returns an environment."""
    return ExactPoint(force)


class Halved(Transform):
    """Halves observations."""

    def __init__(self) -> None:
        super().__init__(in_keys=["observation"], out_keys=["observation"])

    def _apply_transform(self, value: torch.Tensor) -> torch.Tensor:
        return value / 2

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)


class Newest(RandomSampler):
    """Draws among the newest transitions in a storage that is not full.

    Args:
        count: how many those are.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def sample(self, storage: Any, batch_size: int) -> tuple[torch.Tensor, dict]:
        oldest = max(len(storage) - self.count, 0)
        return torch.randint(oldest, len(storage), (batch_size,)), {}


def make_buffer(capacity: int) -> ReplayBuffer:
    """A function that returns a replay buffer."""
    return ReplayBuffer(storage=LazyTensorStorage(capacity))
