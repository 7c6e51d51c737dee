"""An objective that is the return in a model which planners may look into and differentiate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_mbrl.models import EnsembleWorldModel, WorldModel

# (states [R, S], actions [R, A]) -> next states [R, S], rewards [R]
ModelStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ModelObjective:
    """Sums up the rewards of action sequences in a model: an `Objective` for all planners, and all that `ILQR` needs.

    Attributes:
        start: states that plans begin in, `[B, S]`.
        step: the model: deterministic, differentiable, and a row's result depends on that row alone.
    """

    start: Tensor
    step: ModelStep

    def __call__(self, candidates: Tensor) -> Tensor:
        """Computes the returns `[B, N]` of candidates `[B, N, H, A]`."""
        batch, each = candidates.shape[:2]
        state = self.start.repeat_interleave(each, 0)
        total = candidates.new_zeros(batch * each)
        for action in candidates.flatten(0, 1).unbind(1):
            state, reward = self.step(state, action)
            total = total + reward
        return total.view(batch, each)


def model_objective(model: WorldModel[Any], observation: Tensor) -> ModelObjective:
    """Makes a world model an objective from observations `[B, O]`.

    The state is what the model hands back, side by side: a recurrent model's observation and memory. An ensemble is
    the mean of its elites. Terminations play no part.

    Raises:
        TypeError: if the model's state consists of anything but tensors `[B, ...]`.
    """
    if isinstance(model, EnsembleWorldModel):
        dynamics = model.dynamics

        def mean_step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            change = dynamics(state, action, dynamics.elites)[0].mean(0)
            return state + change[:, :-1], change[:, -1]

        return ModelObjective(observation, mean_step)
    first = model.initial(observation)
    parts = (first,) if isinstance(first, Tensor) else first
    if not (isinstance(parts, tuple) and all(isinstance(part, Tensor) for part in parts)):
        raise TypeError(f"the state of {type(model).__name__} is no tuple of tensors")
    shapes = [part.shape[1:] for part in parts]
    sizes = [shape.numel() for shape in shapes]

    def unflatten(state: Tensor) -> Any:
        pieces = [piece.reshape(-1, *shape) for piece, shape in zip(state.split(sizes, -1), shapes, strict=True)]
        return pieces[0] if isinstance(first, Tensor) else type(first)(*pieces)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following, reward, _ = model.step(unflatten(state), action)
        return _flatten(following), reward.squeeze(-1)

    return ModelObjective(_flatten(first), step)


def _flatten(state: Any) -> Tensor:
    parts = (state,) if isinstance(state, Tensor) else state
    return torch.cat([part.flatten(1) for part in parts], -1)
