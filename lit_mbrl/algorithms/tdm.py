"""Temporal difference models: values of goals and horizons that are a model of what can be reached.

Pong, Gu, Dalal and Levine 2018, "Temporal Difference Models: Model-Free Deep RL for Model-Based Control" (arXiv
1802.09081), sections 3 and 4. `Q(x, u, g, tau)` is minus how far from the goal `g` the state will be when `tau` further
steps have been taken towards it, as a vector: one distance for each number of the goal.

    Q(x, u, g, tau) = -|a(x') - g|                                     tau = 0       (a(x'): the achieved goal)
                    = max_u' Q(x', u', g, tau - 1)                     tau > 0
    Q(x, u, g, tau) = -|f(x, u, g, tau) - g|                           the network is f, which predicts what is reached

Each transition is learned from with another horizon, uniform in `0..max_tau`, and a share of them with a goal that was
achieved later in the episode (`data.hindsight`), so that one transition tells of all of them. The maximum is the
actor's: DDPG's (`TDM`) or TD3's (`TDMTD3`). What to do, `model.acting`:

- `actor`: the learned policy, for the episode's goal `g*` and the steps that are left.
- `mpc_direct`: the action of the pair `(u, g)` with the highest reward `r(f(x, u, g, tau), g*)`, of the state that the
  model says is reached.
- `mpc_constrained`: the action of the pair with the highest `r(g, g*)` subject to `Q(x, u, g, tau) = 0`, the goals
  that can be reached. The constraint is a penalty, the sum over the numbers of `Q` times a weight that grows by the
  same factor in every iteration of the search, from a hundredth of `model.constraint_weight` to the whole of it: goals
  come near the best one first, and are then drawn to what the action reaches.

Both search with a planner over `[u, g]`, goals between the lowest and the highest that have been seen; the search
begins at the actor's action and at `g*`. `r` is the task's reward where it depends on goals alone and is known
(`envs.tasks.rewards.goal_rule`), or else minus the Euclidean distance.

Readings and departures:

- The paper's constrained problem with steps of K goes through states `x_t, x_{t+K}, ...`, with `Q = 0` from each to the
  next. From a goal that is but a part of a state nothing can be predicted any further, so there is a single step here,
  whose K is the whole rest of the horizon: the paper's own simplification of it.
- While acting `tau` falls from `max_tau` to 0 in every step and starts anew, as in the authors' code (vitchyr/rlkit
  0.1.2); at the end of the warm-up and in each episode it starts anew as well.
- Of the batch the code relabels all goals but the first quarter's; `data.hindsight: {goals: 3}` relabels three quarters
  on average. Its `future` includes the transition's own step, as the code's.
- Terminations of the environment are ignored, as the code's documentation says; its code takes them for the end of the
  horizon: `model.terminations: horizon`.
- The targets follow softly, as the code's examples ask for; its DDPG copies them every 1000 updates all the same:
  `lit_mbrl.callbacks.SoftTargetUpdate(tau=1, period=1000)`.
- The squared error, as algorithm 1 has it; the code's examples take the Huber loss, `model.huber_delta: 1`.
- Networks read all entries of the observation, which include the achieved goal, and `tau / max_tau`; the code reads
  `tau` as it is. With `normalize_observations` f predicts goals in the units of the normalised achieved goal, and
  distances stay in the task's; the code measures `|f - g|` in normalised units. Its statistics are those of 20 random
  episodes; ours go on.
- TD3 is not in the paper: the smaller of the two target values, number by number, with smoothed target actions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.algorithms.td3 import TD3
from lit_mbrl.losses import dpg_loss, goal_score, goal_value, huber_loss, tdm_target
from lit_mbrl.networks import QEnsemble
from lit_mbrl.networks.countdown import Countdown
from lit_mbrl.planners import CEM, Planner
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, Rule

_EVAL_SEED = 0
_FIRST_WEIGHT = 0.01  # of the constraint, as a share of the last one
_WEIGHTS = "numbers >= 0, not all of them 0, as [0.1,0.9]"
Weights = Annotated[tuple[NonNegativeFloat, ...], Rule(_WEIGHTS, lambda weights: any(weights))]


@options
class GoalConditioned(Algorithm):
    """Values of goals and horizons, for both of the bases: `class TDM(GoalConditioned, DDPG)`."""

    fixed_on_resume = (*Algorithm.fixed_on_resume, "max_tau", "structure")

    max_tau: NonNegativeInt = 10
    """Longest horizon: steps after the coming one until the goal is to be reached."""
    structure: Literal["difference", "plain"] = "difference"
    """Q is `-|f - g|` of the network f (`"difference"`, the paper's), or the network itself (`"plain"`)."""
    reward_scale: PositiveFloat = 1.0
    """Factor of all distances."""
    goal_weights: Weights | None = None
    """Factor of the distance of each number of a goal; null: 1."""
    actor_norm: Literal[1, 2] = 1
    """The actor minimises the 1-norm of the distances, the sum of Q's numbers, or their 2-norm."""
    huber_delta: PositiveFloat | None = None
    """Error of Q beyond which the loss is linear; null: half the squared error throughout."""
    terminations: Literal["ignored", "horizon"] = "ignored"
    """Where the environment terminates: nothing (`"ignored"`), or the horizon is over (`"horizon"`)."""
    acting: Literal["actor", "mpc_direct", "mpc_constrained"] = "actor"
    """The policy of collection and of evaluation: the actor, or model-predictive control over the goals' values."""
    planner: Planner | None = None
    """Optimiser over actions and goals `[u, g]`, with a horizon of 1; null: CEM, 10 iterations of 200 candidates."""
    constraint_weight: PositiveFloat = 10.0
    """Last weight of the constraint `Q = 0`; exact where it is above the reward's change per distance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.planner = self.planner or CEM(horizon=1, num_candidates=200, num_elites=20, iterations=10)
        one = "1: what is searched for is one action and the goal that it leads to"
        require(self.planner.horizon == 1, "model.planner.horizon", self.planner.horizon, one)
        without = "a planner without gradients, as CEM: there is no model to differentiate"
        require(not self.planner.needs_gradient, "model.planner", type(self.planner).__name__, without)
        plain = self.structure == "plain"
        predicts = "difference with model.acting=mpc_direct, which needs the prediction f"
        require(not plain or self.acting != "mpc_direct", "model.structure", self.structure, predicts)
        signed = "1 with model.structure=plain, whose numbers may have either sign"
        require(not plain or self.actor_norm == 1, "model.actor_norm", self.actor_norm, signed)
        self.countdown = Countdown(self.max_tau)

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; the environment has goals, and as many weights as they have numbers."""
        super().check(spec)
        widths = [spec.parts[key].stop - spec.parts[key].start for key in _GOALS if key in spec.parts]
        goals = f"an environment that observes {' and '.join(_GOALS)}, of one length, which {type(self).__name__} needs"
        require(len(widths) == 2 and widths[0] == widths[1], "data.env.name", spec.name, goals)
        weights = self.goal_weights
        each = f"{widths[0]} numbers, one for each of the goal's in {spec.name}"
        require(weights is None or len(weights) == widths[0], "model.goal_weights", weights, each)

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` for several tasks, whose goals may lie in different columns."""
        own = f"{{}} with {type(self).__name__}, whose goals are those of one task"
        require(not data.env.other_tasks, "data.env.other_tasks", data.env.other_tasks, own)

    def build(self, spec: Any) -> None:
        self.achieved, self.desired = (spec.parts[key] for key in _GOALS)
        self.goal_dim = self.desired.stop - self.desired.start
        self.goal_reward = spec.goal_reward or _distance_reward
        weights = torch.tensor(self.goal_weights or [1.0] * self.goal_dim)
        self.register_buffer("weight", self.reward_scale * weights, persistent=False)
        self.register_buffer("goal_low", torch.full((self.goal_dim,), torch.inf))
        self.register_buffer("goal_high", torch.full((self.goal_dim,), -torch.inf))
        # The networks see the horizon as one more number of the observation.
        super().build(replace(spec, observation_dim=spec.observation_dim + 1, observation_shape=()))

    def make_critic(self, spec: Any) -> QEnsemble:
        sizes = spec.observation_dim, spec.action_dim
        return QEnsemble(*sizes, self.hidden_sizes, num=self.num_critics, outputs=self.goal_dim)

    # ------------------------------------------------------------------ what a training step learns from
    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """Transitions `[B]`, as `data` serves them, with a horizon each, `"tau"` `[B, 1]`, uniform in `0..max_tau`."""
        batch = data.sample()
        frames = batch["transitions"]
        frames["tau"] = torch.randint(self.max_tau + 1, (len(frames), 1)).float()
        return batch

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """See `Algorithm.prepare_batch`; and goals, raw: `"goal"` and `("next", "achieved")` `[B, G]`."""
        goal, achieved = batch["observation"][..., self.desired], batch["next", "observation"][..., self.achieved]
        prepared = super().prepare_batch(batch)
        prepared["goal"], prepared["next", "achieved"] = goal, achieved
        if "tau" in batch.keys():  # noqa: SIM118
            prepared["tau"] = batch["tau"]
        return prepared

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """See `Algorithm.after_collect`; widens the range of goals."""
        super().after_collect(data, frames)
        seen = distributed.gather_rows(frames["next", "observation"].flatten(0, -2)).to(self.device)
        for goals in (seen[:, self.achieved], seen[:, self.desired]):
            self.goal_low.copy_(torch.minimum(self.goal_low, goals.amin(0)))
            self.goal_high.copy_(torch.maximum(self.goal_high, goals.amax(0)))

    # ------------------------------------------------------------------ the model
    def with_horizon(self, observation: Tensor, tau: Tensor) -> Tensor:
        """Concatenates observations `[..., O]` and horizons `[..., 1]`, in shares of `max_tau`, to `[..., O + 1]`."""
        return torch.cat([observation, tau / max(self.max_tau, 1)], -1)

    def reached(self, output: Tensor) -> Tensor:
        """The goal `[..., G]` that a network's output says is reached, in the task's units."""
        if self.normalizer is None:
            return output
        mean, std = self.normalizer.mean_std(output.dtype)
        return output * std[self.achieved] + mean[self.achieved]

    def value(self, output: Tensor, goal: Tensor) -> Tensor:
        """Q `[*E, B, G]` of goals `[B, G]` from outputs `[*E, B, G]` of critics."""
        return output if self.structure == "plain" else goal_value(self.reached(output), goal, self.weight)

    # ------------------------------------------------------------------ learning
    def target(self, batch: TensorDictBase) -> Tensor:
        """The critics' target `[B, G]`, a constant."""
        following, tau, goal = batch["next"], batch["tau"], batch["goal"]
        over = tau == 0
        if self.terminations == "horizon":
            over = over | following["terminated"]
        with torch.no_grad():
            seen = self.with_horizon(following["observation"], (tau - 1.0).clamp(min=0.0))
            next_q = self.value(self.critic_target(seen, self.target_action(seen)), goal).amin(0)
        return tdm_target(following["achieved"], goal, self.weight, over, next_q)

    def critic_loss(self, batch: TensorDictBase) -> Tensor:
        """Huber loss of the temporal-difference error of every critic, mean over the numbers of the goals."""
        target = self.target(batch)
        seen = self.with_horizon(batch["observation"], batch["tau"])
        q = self.value(self.critic(seen, batch["action"]), batch["goal"])
        self.record("q/mean", q.mean)
        self.record("q/target", target.mean)
        loss = huber_loss(q.unsqueeze(-1), target.expand_as(q).unsqueeze(-1), self.huber_delta)
        return loss.mean((1, 2, 3)).sum()

    def actor_loss(self, batch: TensorDictBase) -> Tensor:
        """Deterministic policy gradient through the first critic: how near the goal is when the horizon is over."""
        seen = self.with_horizon(batch["observation"], batch["tau"])
        q = self.value(self.critic.first(seen, self.actor(seen)), batch["goal"])
        return dpg_loss(goal_score(q, self.actor_norm)).mean()

    # ------------------------------------------------------------------ acting
    def choose(self, observation: Tensor, tau: Tensor) -> Tensor:
        """Actions `[N, A]` of observations `[N, O]` with `tau` `[N, 1]` further steps to go."""
        action = self.actor(self.with_horizon(observation, tau))
        return action if self.acting == "actor" else self.plan(observation, tau, action)

    def plan(self, observation: Tensor, tau: Tensor, action: Tensor) -> Tensor:
        """The actions `[N, A]` that a search from these actions has found: `mpc_direct` or `mpc_constrained`."""
        raw = observation if self.normalizer is None else self.normalizer.inverse(observation)
        goal = raw[:, self.desired]
        low, high = torch.minimum(self.goal_low, goal), torch.maximum(self.goal_high, goal)
        width = (high - low).clamp(min=1e-6)
        start = torch.cat([action, 2.0 * (goal - low) / width - 1.0], -1)[:, None, None]  # [N, 1, 1, A + G]
        iterations = itertools.count()

        def objective(candidates: Tensor) -> Tensor:
            u, unit = candidates[:, :, 0].split([action.shape[1], self.goal_dim], -1)
            g = low[:, None] + 0.5 * (unit + 1.0) * width[:, None]
            left = 1.0 - next(iterations) / max(self.planner.iterations - 1, 1)
            return self.score(observation, tau, u, g, goal, self.constraint_weight * _FIRST_WEIGHT**left)

        draws = self.planner.draws(len(goal), start.shape[-1], goal.device)
        return self.planner.search(objective, draws, start).plan[:, 0, : action.shape[1]]

    def score(
        self, observation: Tensor, tau: Tensor, action: Tensor, candidate: Tensor, goal: Tensor, weight: float
    ) -> Tensor:
        """Scores candidates, `[N, C]`: actions `[N, C, A]` and the goals `[N, C, G]` that they go for.

        Args:
            goal: the episodes' own, `[N, G]`, raw as the candidates.
            weight: of the constraint.
        """
        count = action.shape[1]
        rows = observation.repeat_interleave(count, 0)
        tau, goal = tau.repeat_interleave(count, 0), goal.repeat_interleave(count, 0)
        action, candidate = action.flatten(0, 1), candidate.flatten(0, 1)
        rows[:, self.desired] = candidate
        if self.normalizer is not None:
            mean, std = self.normalizer.mean_std(candidate.dtype)
            rows[:, self.desired] = (candidate - mean[self.desired]) / std[self.desired]
        output = self.critic.first(self.with_horizon(rows, tau), action)
        if self.acting == "mpc_direct":
            return self.goal_reward(self.reached(output), goal).view(-1, count)
        distance = self.value(output, candidate).sum(-1, keepdim=True) / self.reward_scale
        return (self.goal_reward(candidate, goal) + weight * distance).view(-1, count)

    def act(self, observation: Tensor) -> Tensor:
        """The action `[N, A]` in the first step of an episode."""
        start = torch.ones(len(observation), 1, dtype=torch.bool, device=observation.device)
        return self.eval_policy()(observation, start)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        return self.exploration_noise(self.choose(observation, self.countdown(is_init)), is_init)

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the evaluation's policy, with its own countdown; its search draws from a fixed seed on."""
        countdown = Countdown(self.max_tau)
        generator = torch.Generator().manual_seed(_EVAL_SEED)

        def policy(observation: Tensor, is_init: Tensor) -> Tensor:
            tau = countdown(is_init)
            if self.acting == "actor":
                return self.choose(observation, tau)
            with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                return self.choose(observation, tau)

        return policy

    def lose_track(self) -> None:
        """Starts all horizons anew, since an episode has begun."""
        super().lose_track()
        self.countdown.forget()

    def episode_metrics(self, episodes: TensorDictBase) -> dict[str, Tensor]:
        """The distance of achieved and desired goal at the end of the episodes."""
        last = episodes["mask"].sum(1) - 1
        rows = torch.arange(len(last), device=last.device)
        achieved, goal = episodes["next", "achieved"][rows, last], episodes["goal"][rows, last]
        return {"eval/final_distance": torch.linalg.vector_norm(achieved - goal, dim=-1).mean()}


_GOALS = ("achieved_goal", "desired_goal")


def _distance_reward(achieved: Tensor, desired: Tensor) -> Tensor:
    return -torch.linalg.vector_norm(achieved - desired, dim=-1, keepdim=True)


@options
class TDM(GoalConditioned, DDPG):
    """Temporal difference models on DDPG, as in the paper. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Pong et al. 2018, arXiv 1802.09081"
    gamma: ClassVar[float] = 1.0  # type: ignore[misc]  # no option here: a horizon ends, and nothing is discounted


@options
class TDMTD3(GoalConditioned, TD3):
    """Temporal difference models on TD3. Needs `lit_mbrl.callbacks.SoftTargetUpdate`."""

    paper = "Pong et al. 2018, arXiv 1802.09081"
    gamma: ClassVar[float] = 1.0  # type: ignore[misc]  # no option here
