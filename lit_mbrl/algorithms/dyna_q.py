"""Dyna-Q and Dyna-Q+: Q-learning on real steps and on steps that a table remembers.

Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, sections 8.2 and 8.3; Sutton 1990,
"Integrated Architectures for Learning, Planning, and Reacting Based on Approximating Dynamic Programming". The box
"Tabular Dyna-Q" is in `explore` and `after_collect`: after each real step one update on it, the model takes it, and
`planning_steps` updates on what the model remembers. There is no neural network and no gradient.

Readings and departures:

- Greedy actions are drawn among the best while collecting, as in the book's examples; evaluation takes the first.
- Where an environment is not deterministic, the model remembers the last outcome, as the box says.
- A time limit ends no bootstrap. Several environments side by side learn from each other's steps in their order.
- Dyna-Q+ has its bonus in planning alone. For an action that was never taken time counts from the start of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.training.tabular import ModelTable, plan, q_update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat


@options
class DynaQ(Algorithm):
    """A table of action values and a table of outcomes, for one of n states and one of n actions.

    Needs `data.OnPolicy` with `rollout_steps` and `num_epochs` 1: it learns after every step.
    """

    paper = "Sutton and Barto 2018, section 8.2"
    learns_from = "rollouts"
    continuous_actions = False
    cpu_only = True
    normalize_observations: ClassVar[bool] = False  # one of n needs none
    untried: ClassVar[bool] = False  # whether planning draws from actions that were never taken, too

    planning_steps: NonNegativeInt = 50
    """Updates on the model after each environment step: n of the book. 0 is Q-learning."""
    lr: PositiveFloat = 0.1
    """Step size: alpha of the book."""
    gamma: ClosedUnitInterval = 0.95
    """Discount."""
    epsilon: ClosedUnitInterval = 0.1
    """Probability of a uniformly random action while collecting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        none = f"{{}}: {type(self).__name__} has no gradients"
        require(not self.compile_option, "model.compile", self.compile_option, none.format("false"))
        require(self.max_grad_norm is None, "model.max_grad_norm", self.max_grad_norm, none.format("null"))

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        super().check(spec)
        needs = f"an environment with one of n states and one of n actions, which {type(self).__name__} needs"
        require(spec.states is not None and spec.discrete, "data.env.name", spec.name, needs)

    def check_data(self, data: Any) -> None:
        for option in ("rollout_steps", "num_epochs"):
            value = getattr(data, option)
            require(value == 1, f"data.{option}", value, f"1 with {type(self).__name__}, which learns after every step")

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one, whose tables would differ."""
        require(count == 1, "trainer.devices", count, f"1 with {type(self).__name__}")

    def build(self, spec: Any) -> None:
        self.q = nn.Buffer(torch.zeros(spec.states, spec.action_dim, dtype=torch.float64))
        self.model = ModelTable(spec.states, spec.action_dim)
        self.episodes = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.cumulative_reward = nn.Buffer(torch.zeros((), dtype=torch.float64))

    def updates(self) -> Iterator[Update]:
        """None: there are no gradients."""
        yield from ()

    # ------------------------------------------------------------------ tabular Dyna-Q
    def act(self, observation: Tensor) -> Tensor:
        return self.q[observation.argmax(-1)].argmax(-1)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """Steps (a), (b): the current states' actions `[N]`, epsilon-greedy with ties broken at random."""
        values = self.q[observation.argmax(-1)]
        greedy = torch.multinomial((values == values.amax(-1, keepdim=True)).float(), 1)[:, 0]
        at_random = torch.rand(len(values)) < self.epsilon
        return torch.where(at_random, torch.randint(values.shape[-1], (len(values),)), greedy)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Steps (d) to (f): Q-learning on the step, the model takes it, and Q-learning on the model."""
        following = frames["next"]
        states, next_states = (each["observation"].flatten(0, 1).argmax(-1).tolist() for each in (frames, following))
        rewards, ends = (following[key].flatten().tolist() for key in ("reward", "terminated"))
        for outcome in zip(states, frames["action"].flatten().tolist(), rewards, next_states, ends, strict=True):
            q_update(self.q, *outcome, self.lr, self.gamma)
            self.model.observe(*outcome)
            self.plan()
        self.cumulative_reward += sum(rewards)
        self.episodes += (following["terminated"] | following["truncated"]).sum()
        self.note(
            {
                "train/episodes": float(self.episodes),
                "train/cumulative_reward": float(self.cumulative_reward),
                "q/mean": float(self.q.mean()),
            }
        )

    def plan(self) -> None:
        """Step (f): `planning_steps` updates on what the model remembers."""
        if self.planning_steps:
            uniforms = torch.rand(self.planning_steps, 2, dtype=torch.float64)
            plan(self.q, self.model, uniforms, self.lr, self.gamma, self.bonus_scale, self.untried)

    @property
    def bonus_scale(self) -> float:
        """Returns the factor of the bonus for actions that were not taken for long; 0 here."""
        return 0.0


@options
class DynaQPlus(DynaQ):
    """Dyna-Q whose planning rewards actions that were not taken for long: `r + kappa sqrt(tau)`, section 8.3.

    Planning draws from all actions of a visited state; of those never taken it expects to stay there without reward
    (the footnote).
    """

    paper = "Sutton and Barto 2018, section 8.3"
    untried = True

    kappa: NonNegativeFloat = 1e-3
    """Bonus per square root of the steps since the action was last taken in that state."""

    @property
    def bonus_scale(self) -> float:
        return self.kappa
