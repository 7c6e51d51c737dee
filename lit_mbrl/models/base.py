"""The verbs of a world model."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

S = TypeVar("S")


@runtime_checkable
class WorldModel(Protocol[S]):
    """Dynamics, reward and termination: what `imagination.imagine` needs of a model, all of it differentiable.

    The state `S` is the model's own; callers only hand it back.

    | verb | in | out |
    |---|---|---|
    | `initial` | observation `[B, O]` | state `S` |
    | `step` | state `S`, action `[B, A]` | next state `S` |
    | `observation` | state `S` | observation `[B, O]`, what the policy sees |
    | `reward` | state `S`, action `[B, A]` | reward `[B, 1]` of taking the action in the state |
    | `termination_logit` | state `S`, action `[B, A]` | logit `[B, 1]` of the episode terminating after the action |
    """

    def initial(self, observation: Tensor) -> S: ...

    def step(self, state: S, action: Tensor) -> S: ...

    def observation(self, state: S) -> Tensor: ...

    def reward(self, state: S, action: Tensor) -> Tensor: ...

    def termination_logit(self, state: S, action: Tensor) -> Tensor: ...
