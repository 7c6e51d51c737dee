"""Deep Q-network: the values of discrete actions, learned from a replay.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature 518, doi 10.1038/nature14236),
algorithm 1: the network regresses `r + gamma max_u Q'(x', u)`, where the target network Q' is the network of a while
ago, and acts greedily but for a share of random actions that falls over the environment steps.

By option: double DQN (van Hasselt et al. 2015, arXiv 1509.06461), whose online network chooses the target's action;
returns of several steps (Sutton 1988; as in Rainbow, Hessel et al. 2017, arXiv 1710.02298, section 3, without
correction for the actions in between); proportional priorities (Schaul et al. 2015, arXiv 1511.05952, algorithm 1).

Readings and departures:

- The paper copies the target every C updates: `lit_mbrl.callbacks.SoftTargetUpdate(tau=1, period=C)`. A smaller tau
  follows softly, as DDPG's.
- The paper cuts the temporal-difference error to [-1, 1] in the update; that is the gradient of the Huber loss with
  `huber_delta=1`, its reading in today's implementations.
- Adam, where the paper has RMSProp.
- The paper anneals epsilon from the first step; actions of the warm-up (`data.learning_starts`) are all random here.
- Evaluation is greedy; the paper's has an epsilon of 0.05.
- Returns of several steps end with their episode, and at the newest frame, with as many steps as there are.
- Priorities are those of the networks after the training step. A new transition has the highest priority so far.
  Weights are divided by the largest of their batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import (
    action_value,
    double_q_value,
    huber_loss,
    importance_weight,
    normalized_by_max,
    sampling_mass,
    td_priority,
    td_target,
)
from lit_mbrl.networks import MLP
from lit_mbrl.returns import n_step_return
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rule,
    Sizes,
)

Exponents = Annotated[tuple[float, float], Rule("two numbers >= 0, as [0.4,1]", lambda pair: min(pair) >= 0)]


@options
class DQN(Algorithm):
    """Values of discrete actions and an epsilon-greedy policy. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Mnih et al. 2015, doi 10.1038/nature14236"
    takes_relabelled = True
    continuous_actions = False
    fixed_on_resume = (*Algorithm.fixed_on_resume, "priority_exponent")

    hidden_sizes: Sizes = (128, 128)
    """Hidden layers."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    lr: PositiveFloat = 5e-4
    """Adam's learning rate."""
    adam_eps: PositiveFloat = 1e-8
    """Adam's epsilon."""
    huber_delta: PositiveFloat | None = 1.0
    """Error beyond which the loss is linear; null: half the squared error throughout."""
    double_q: bool = False
    """Let the online network choose the action whose target value counts: double DQN."""
    n_step: PositiveInt = 1
    """Rewards of a target before the value that follows them."""
    epsilon_start: ClosedUnitInterval = 1.0
    """Share of random actions at environment step 0."""
    epsilon_end: ClosedUnitInterval = 0.05
    """The same from `epsilon_steps` on."""
    epsilon_steps: NonNegativeInt = 10_000
    """Environment steps over which it falls, on a straight line."""
    priority_exponent: NonNegativeFloat = 0.0
    """Alpha of proportional priorities; 0 draws uniformly, without any."""
    priority_epsilon: PositiveFloat = 1e-6
    """Added to the absolute temporal-difference error, so that no transition is lost for good."""
    weight_exponent: Exponents = (0.4, 1.0)
    """Beta of the importance weights at the start and at the end of the run, on a straight line in between; plays no
    part without priorities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("max_priority", torch.ones(()))
        self._slots: Tensor | None = None  # of the running training step's transitions, if they have priorities

    def build(self, spec: Any) -> None:
        self.action_dim = spec.action_dim
        self.critic = MLP(spec.observation_dim, self.hidden_sizes, spec.action_dim)
        self.critic_target = copy.deepcopy(self.critic)

    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; actions are discrete."""
        super().check(spec)
        if not spec.discrete:
            raise OptionError("data.env.name", spec.name, "an environment with discrete actions, which DQN needs")

    def updates(self) -> Iterator[Update]:
        """One gradient step of the values: algorithm 1."""
        yield Update("critic", self.critic, self.critic_loss, self.lr, eps=self.adam_eps)

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield self.critic, self.critic_target

    # ------------------------------------------------------------------ acting
    @property
    def epsilon(self) -> float:
        """The share of random actions at this environment step."""
        share = min(1.0, self.env_steps / self.epsilon_steps) if self.epsilon_steps else 1.0
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * share

    def act(self, observation: Tensor) -> Tensor:
        return self.critic(observation).argmax(-1)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        greedy = self.act(observation)
        random = torch.randint_like(greedy, self.action_dim)
        return torch.where(torch.rand(greedy.shape, device=greedy.device) < self.epsilon, random, greedy)

    # ------------------------------------------------------------------ what a training step learns from
    @property
    def prioritized(self) -> bool:
        """Returns whether transitions are drawn by priority."""
        return self.priority_exponent > 0

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` for a buffer or a sampler beside priorities or returns of several steps."""
        frames = "null for DQN with model.n_step > 1 or model.priority_exponent > 0, which need the replay's own frames"
        require(data.buffer is None or (self.n_step == 1 and not self.prioritized), "data.buffer", data.buffer, frames)
        one = "null for DQN with model.n_step > 1, whose returns are of the episode's own goal"
        require(data.hindsight is None or self.n_step == 1, "data.hindsight", data.hindsight, one)
        drawn = "null with model.priority_exponent > 0: priorities say what is drawn"
        require(data.sampler is None or not self.prioritized, "data.sampler", data.sampler, drawn)

    def add_buffers(self, data: Any) -> None:
        if self.prioritized:
            data.add_priorities("priorities")

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """Transitions `[B]`, with the weights and the discounts that the options ask for."""
        if self.n_step == 1 and not self.prioritized:
            return data.sample()
        count, replay = data.batch_size // distributed.world_size(), data.replay
        weight = None
        if self.prioritized:
            priorities = data.buffers["priorities"]
            new = priorities.new_slots()
            priorities.set(new, sampling_mass(self.max_priority.cpu(), self.priority_exponent).expand(len(new)))
            slots, probability = priorities.draw(count, len(replay))
            self._slots = slots
            weight = normalized_by_max(importance_weight(probability, len(replay), self.beta)).unsqueeze(-1)
        else:
            slots = replay.sample_slots(count)
        batch = self.n_step_transitions(*replay.windows(slots, self.n_step))
        if weight is not None:
            batch["weight"] = weight
        return {"transitions": batch}

    def n_step_transitions(self, frames: TensorDictBase, mask: Tensor) -> TensorDict:
        """Transitions `[B]` over the first steps of windows `[B, n]`, as many as `mask` `[B, n]` says.

        `("next", "reward")` is the discounted sum, `"discount"` `[B, 1]` that of the value after it.
        """
        following = frames["next"]
        reward, discount = n_step_return(following["reward"], mask.unsqueeze(-1), self.gamma)
        rows, last = torch.arange(len(frames)), mask.sum(1) - 1
        after = {key: following[key][rows, last] for key in ("observation", "terminated", "truncated")}
        first = {key: frames[key][:, 0] for key in ("observation", "action")}
        return TensorDict(first | {"discount": discount, "next": after | {"reward": reward}}, [len(frames)])

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """See `Algorithm.prepare_batch`; weights and discounts, where there are any, stay."""
        prepared = super().prepare_batch(batch)
        for key in ("weight", "discount"):
            if key in batch.keys():  # noqa: SIM118
                prepared[key] = batch[key]
        return prepared

    # ------------------------------------------------------------------ learning
    def training_step(self, batch: dict[str, TensorDictBase | None], batch_idx: int) -> None:
        """See `Algorithm.training_step`; then the batch's transitions have new priorities."""
        super().training_step(batch, batch_idx)
        if self._slots is not None:
            self.update_priorities(self.trainer.datamodule.buffers["priorities"], batch["transitions"])

    @torch.no_grad()
    def update_priorities(self, priorities: Any, batch: TensorDictBase) -> None:
        """Sets the priorities of the transitions `[B]` that were drawn last."""
        q, target = self.values_and_targets(self.prepare_batch(batch))
        priority = td_priority(target - q, self.priority_epsilon)
        self.max_priority.copy_(torch.maximum(self.max_priority, priority.max()))
        priorities.set(self._slots, sampling_mass(priority, self.priority_exponent))
        self._slots = None

    @property
    def beta(self) -> float:
        """The exponent of the importance weights at this environment step."""
        start, end = self.weight_exponent
        return start + (end - start) * min(1.0, self.env_steps / self.trainer.datamodule.total_frames)

    def values_and_targets(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Values `[B, 1]` of the actions that were taken, and their targets, constants."""
        following = batch["next"]
        with torch.no_grad():
            target_q = self.critic_target(following["observation"])
            online_q = self.critic(following["observation"]) if self.double_q else target_q
            next_q = double_q_value(online_q, target_q)
        discount = batch["discount"] if "discount" in batch.keys() else self.gamma  # noqa: SIM118
        target = td_target(following["reward"], following["terminated"], next_q, discount)
        return action_value(self.critic(batch["observation"]), batch["action"]), target

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Huber loss of the temporal-difference error."""
        q, target = self.values_and_targets(batch)
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        loss = huber_loss(q, target, self.huber_delta)
        return (loss * batch["weight"]).mean() if "weight" in batch.keys() else loss.mean()  # noqa: SIM118

    def log_training(self) -> None:
        """See `Recording.log_training`; the share of random actions, too."""
        self.note({"policy/epsilon": self.epsilon})
        super().log_training()
