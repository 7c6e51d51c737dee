"""Made-up sequences and the latent algorithms that tests run over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict

from lit_mbrl.algorithms import Dreamer, MaxEntDreamer, MaxEntExploration, RevisedDreamer
from lit_mbrl.envs import Spec
from lit_mbrl.training.latent_agent import LatentAgent

SMALL: dict[str, Any] = {"deter": 6, "stoch": 4, "hidden": 8, "depth": 2, "units": 8}
A = 2

DREAMERS: dict[str, Callable[..., Dreamer]] = {
    "dreamer": Dreamer,
    "revised": RevisedDreamer,
    "exploration": MaxEntExploration,
    "maxent": MaxEntDreamer,
}


def build(cls: Callable[..., LatentAgent], shape: Sequence[int] = (3,), **options: Any) -> Any:
    """An algorithm of a few units for observations of a shape."""
    options = SMALL | ({} if cls.__name__ == "PlaNet" else {"horizon": 3}) | options
    algorithm = cls(**options)
    algorithm.configure(Spec("made-up", int(torch.tensor(shape).prod()), A, observation_shape=tuple(shape)))
    return algorithm


def sequences(batch: int = 3, steps: int = 5, shape: Sequence[int] = (3,), ended: bool = True) -> TensorDict:
    """Random sequences `[batch, steps]` as those of `data.SequenceReplay`, the first of which ends in a termination."""
    pixels = len(shape) == 3
    observation = (
        torch.randint(0, 256, (batch, steps, *shape), dtype=torch.uint8)
        if pixels
        else torch.randn(batch, steps, *shape)
    )
    flags = {name: torch.zeros(batch, steps, 1, dtype=torch.bool) for name in ("terminated", "truncated", "is_first")}
    flags["terminated"][0, -1] = ended
    return TensorDict(
        {
            "observation": observation,
            "action": torch.rand(batch, steps, A) * 2 - 1,
            "reward": torch.randn(batch, steps, 1),
            "mask": torch.ones(batch, steps, 1, dtype=torch.bool),
            **flags,
        },
        [batch, steps],
    )
