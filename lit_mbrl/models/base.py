"""The verbs of a world model, and how one is chosen by configuration and trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.utils.errors import OptionError

S = TypeVar("S")
# (observation [B, O], action [B, A], next observation [B, O]) -> whether the episode has terminated, bool [B, 1]
TerminationRule = Callable[[Tensor, Tensor, Tensor], Tensor]


class Step(NamedTuple, Generic[S]):
    """A model's prediction for an action: the next state, reward and termination of the transition.

    | field | |
    |---|---|
    | `state` | the state after the action |
    | `reward` | `[B, 1]` of taking the action in the state before |
    | `termination_logit` | `[B, 1]` of the episode terminating after the action; -inf and inf where it is certain |
    """

    state: S
    reward: Tensor
    termination_logit: Tensor


@runtime_checkable
class WorldModel(Protocol[S]):
    """Dynamics, reward and termination: what `imagination.imagine` needs of a model, all of it differentiable.

    The state `S` is the model's own; callers only hand it back. A model that draws random numbers in `step` takes them
    from torch's generator, so that a seeded run repeats.

    | verb | in | out |
    |---|---|---|
    | `initial` | observation `[B, O]` | state `S` |
    | `step` | state `S`, action `[B, A]` | `Step`: state `S`, reward and termination logit `[B, 1]` |
    | `termination_logit` | state `S`, action `[B, A]` | the `Step`'s termination logit alone, `[B, 1]` |
    | `observation` | state `S` | observation `[B, O]`, what the policy sees |
    """

    def initial(self, observation: Tensor) -> S: ...

    def step(self, state: S, action: Tensor) -> Step[S]: ...

    def termination_logit(self, state: S, action: Tensor) -> Tensor: ...

    def observation(self, state: S) -> Tensor: ...


@dataclass(frozen=True)
class ModelLoss:
    """One loss of a world model, for steps in training (`loss`) as for a bulk fit to all data (`models.fit`).

    Frames have the keys `"observation"`, `"action"`, `("next", "observation")`, `("next", "reward")` and
    `("next", "terminated")`.

    Attributes:
        name: of the optimiser and of the metric `loss/<name>`.
        modules: whose parameters are trained.
        loss: maps a batch, `[B]` transitions or `[B, T]` sequences, to a scalar.
        lr: Adam's learning rate.
        batch: `"transitions"` or `"sequences"`.
        length: transitions per sequence; None: as many as the longest rollout that is asked of the model.
        repeat: whether a training step may take several steps of it, each on a batch of its own.
        max_grad_norm: clip the gradient to this global norm.
        members: number `E` of members that train side by side, each on data of its own.
        member_loss: maps each member's own batch `[E, B]` to losses `[E]`; None for a single member, which has `loss`.
        error: maps hold-out frames, as `batch` says, to the members' errors `[E]`, which end a fit and rank members.
        weight_decay: parameters to their decay `d`, by which a fit's optimiser adds `d W` to the gradient; what `loss`
            has as `d / 2 |W|^2` and `member_loss` leaves out. The optimiser does it in its one pass over the weights.
        before_fit: takes all training frames before a fit (input scaler).
        after_fit: takes the members' hold-out errors `[E]` after it (elites).
    """

    name: str
    modules: nn.Module | list[nn.Module]
    loss: Callable[[TensorDictBase], Tensor]
    lr: float
    error: Callable[[TensorDictBase], Tensor]
    batch: str = "transitions"
    length: int | None = None
    repeat: bool = False
    max_grad_norm: float | None = None
    members: int = 1
    member_loss: Callable[[TensorDictBase], Tensor] | None = None
    member_parameters: list[nn.Parameter] = field(default_factory=list)
    weight_decay: dict[nn.Parameter, float] = field(default_factory=dict)
    before_fit: Callable[[TensorDictBase], None] | None = None
    after_fit: Callable[[Tensor], None] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in a fixed order."""
        modules = [self.modules] if isinstance(self.modules, nn.Module) else self.modules
        return list(chain.from_iterable(module.parameters() for module in modules))

    def fit_loss(self, frames: TensorDictBase) -> Tensor:
        """Computes the scalar that a fit minimises: the sum of the members' losses, or that of the only one."""
        return self.loss(frames) if self.member_loss is None else self.member_loss(frames).sum()

    def groups(self) -> list[dict[str, Any]]:
        """The trained parameters as groups for a fit's optimiser: one for each weight decay there is."""
        by_decay: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            by_decay.setdefault(self.weight_decay.get(parameter, 0.0), []).append(parameter)
        return [{"params": parameters, "weight_decay": decay} for decay, parameters in by_decay.items()]


class WorldModelFactory:
    """A world model as a section of a config file: `model.world_model: {class_path: ..., init_args: {...}}`."""

    section: ClassVar[str] = "model.world_model"

    def build(self, observation_dim: int, action_dim: int, rule: TerminationRule | None = None) -> Any:
        """A module that speaks `WorldModel` and has `unroll(observation [B, O], actions [B, T, A]) -> [B, T, O]`.

        Args:
            rule: the task's known termination rule on observations as the model sees them; None: there is none.
        """
        raise NotImplementedError

    def objectives(self, model: Any) -> list[ModelLoss]:
        """The losses that train a model which `build` has built, in their order."""
        raise NotImplementedError

    def check_rounds(self) -> None:
        """Raises `OptionError` if the model cannot be trained step by step, without a hold-out."""


def require_rule(mode: str, rule: TerminationRule | None) -> TerminationRule | None:
    """The rule that an option `termination` (known, learned or auto) asks for; None: the termination is learned.

    Raises:
        OptionError: the task has no known rule.
    """
    if mode == "known" and rule is None:
        raise OptionError(
            "model.world_model.termination",
            mode,
            "learned or auto: envs/tasks/terminations.py knows no rule for this data.env",
        )
    return None if mode == "learned" else rule
