"""STEVE's world model: ensembles of transitions, rewards and terminations (Buckman et al. 2018, arXiv 1807.01675v2).

    x, u     --T_m--> x' = x + delta_m     a rollout for each m, which keeps its member all along
    x', x, u --r_n--> reward               every n on the rollout of every m
    x', x, u --d_m--> termination          of the m-th rollout by the m-th member alone

Members differ by their initial weights and, unless all learn from all of a batch, by their data: each has its own share
of a batch's rows.

Legend: `M` transition (and termination) members, `N` reward members, `B` batch, `O` observation, `A` action. Rollouts
lie one member after the other in the rows of a batch `[M B]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses.world_model import dynamics_loss, reward_loss, termination_loss
from lit_mbrl.models.base import Step, TerminationRule, require_rule
from lit_mbrl.networks.ensemble import EnsembleMLP, MemberData, member_rows
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt, Sizes


class SplitEnsemble(nn.Module):
    """`M` transition models side by side, `N` reward models on each of their rollouts, and `M` terminations.

    It speaks `WorldModel` but for two things: rows are those of all members, `[M B]`, and a step's reward has a column
    for each reward member, `[M B, N]`.

    Args:
        transitions: number `M`.
        rewards: number `N`.
        transition_sizes: hidden layers of each transition model.
        head_sizes: hidden layers of each reward and termination model.
        weight_decay: `c` of `c / 2 |W|^2` in the losses; biases are left out.
        rule: the known termination; None: `M` models learn it.
        data: what each member learns from of a batch, its share of the rows or all of them.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        transitions: int,
        rewards: int,
        transition_sizes: Sequence[int],
        head_sizes: Sequence[int],
        weight_decay: float = 0.0,
        rule: TerminationRule | None = None,
        data: MemberData = "shares",
    ) -> None:
        super().__init__()
        self.transitions, self.rewards, self.weight_decay, self.rule = transitions, rewards, weight_decay, rule
        self.data: MemberData = data
        inputs = observation_dim + action_dim
        heads = observation_dim + inputs
        self.dynamics = EnsembleMLP(transitions, inputs, transition_sizes, observation_dim, "relu", "uniform")
        self.reward_model = EnsembleMLP(rewards, heads, head_sizes, 1, "relu", "uniform")
        self.termination_model = (
            EnsembleMLP(transitions, heads, head_sizes, 1, "relu", "uniform") if rule is None else None
        )

    # ------------------------------------------------------------------ predicting
    def initial(self, observation: Tensor) -> Tensor:
        """`[M B, O]`, rows of all members."""
        return observation

    def observation(self, state: Tensor) -> Tensor:
        """`[M B, O]`."""
        return state

    def step(self, state: Tensor, action: Tensor) -> Step[Tensor]:
        """Each member's step with `action [M B, A]`: its next state, every reward model's reward, its termination."""
        inputs = torch.cat([state, action], dim=-1).unflatten(0, (self.transitions, -1))
        following = state + self.dynamics(inputs).flatten(0, 1)
        heads = torch.cat([following, state, action], dim=-1)  # [M B, 2 O + A]
        reward = self.reward_model(heads).squeeze(-1).transpose(0, 1)  # [N, M B, 1] -> [M B, N]
        return Step(following, reward, self._termination_logit(heads, state, action, following))

    def _termination_logit(self, heads: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        if self.termination_model is not None:
            return self.termination_model(heads.unflatten(0, (self.transitions, -1))).flatten(0, 1)
        assert self.rule is not None
        return torch.where(self.rule(state, action, following), torch.inf, -torch.inf).to(state.dtype)

    def termination_logit(self, state: Tensor, action: Tensor) -> Tensor:
        """`[M B, 1]` of each member's step."""
        return self.step(state, action).termination_logit

    def unroll(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Open-loop prediction from `[B, O]` with actions `[B, T, A]`: the members' mean, `[B, T, O]`."""
        state, predictions = observation.expand(self.transitions, *observation.shape), []
        for action in actions.unbind(1):
            action = action.expand(self.transitions, *action.shape)
            state = state + self.dynamics(torch.cat([state, action], dim=-1))
            predictions.append(state.mean(0))
        return torch.stack(predictions, dim=1)

    # ------------------------------------------------------------------ learning
    def dynamics_loss(self, batch: TensorDictBase) -> Tensor:
        """`1/2 |x' - x - delta_m|^2` of each member on its rows of the batch, mean over all."""
        observation, following = batch["observation"], batch["next", "observation"]
        inputs = self._rows(torch.cat([observation, batch["action"]], dim=-1), self.transitions)
        error = dynamics_loss(self.dynamics(inputs), self._rows(following - observation, self.transitions))
        return 0.5 * error.mean() + self._decay(self.dynamics)

    def reward_loss(self, batch: TensorDictBase) -> Tensor:
        """`1/2 (r - r_n)^2` of each member on its rows of the batch, mean over all."""
        predicted = self.reward_model(self._rows(_heads(batch), self.rewards))
        error = reward_loss(predicted, self._rows(batch["next", "reward"], self.rewards))
        return 0.5 * error.mean() + self._decay(self.reward_model)

    def termination_loss(self, batch: TensorDictBase) -> Tensor:
        """Negative log-likelihood of terminations, of each member on its rows of the batch, mean over all."""
        assert self.termination_model is not None
        logit = self.termination_model(self._rows(_heads(batch), self.transitions))
        error = termination_loss(logit, self._rows(batch["next", "terminated"], self.transitions))
        return error.mean() + self._decay(self.termination_model)

    def _rows(self, rows: Tensor, members: int) -> Tensor:
        return member_rows(rows, members, self.data)

    def _decay(self, networks: EnsembleMLP) -> Tensor:
        return networks.l2([self.weight_decay] * len(networks.weights)).sum()


def _heads(batch: TensorDictBase) -> Tensor:
    return torch.cat([batch["next", "observation"], batch["observation"], batch["action"]], dim=-1)


@options
class SplitEnsembleConfig:
    """STEVE's ensembles; sizes, decay and rate are the public code's, since the paper leaves them to it."""

    section: ClassVar[str] = "model.world_model"

    num_transitions: PositiveInt = 4
    """Transition models, and termination models."""
    num_rewards: PositiveInt = 4
    """Reward models."""
    hidden_sizes: Sizes = (512, 512, 512, 512, 512, 512, 512)
    """Hidden layers of each transition model."""
    head_sizes: Sizes = (128, 128, 128)
    """Hidden layers of each reward and termination model."""
    lr: PositiveFloat = 3e-4
    """Adam's learning rate."""
    weight_decay: NonNegativeFloat = 1e-4
    """`c` of `c / 2 |W|^2` in each loss; biases are left out."""
    termination: Literal["known", "learned", "auto"] = "learned"
    """`"learned"`, `"known"` by the task's rule, or `"auto"`: known where the task has a rule."""

    def build(
        self,
        observation_dim: int,
        action_dim: int,
        rule: TerminationRule | None = None,
        data: MemberData = "shares",
    ) -> SplitEnsemble:
        """The model; raises `OptionError` if the task's rule is wanted and there is none."""
        return SplitEnsemble(
            observation_dim,
            action_dim,
            self.num_transitions,
            self.num_rewards,
            self.hidden_sizes,
            self.head_sizes,
            self.weight_decay,
            require_rule(self.termination, rule),
            data,
        )
