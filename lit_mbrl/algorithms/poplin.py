"""POPLIN: PETS whose search is around a policy network, in its actions (POPLIN-A) or in its weights (POPLIN-P).

Wang and Ba 2019, "Exploring Model-based Planning with Policy Networks" (arXiv 1906.08649v1), section 4. The model and
the trials are PETS'; with `f` for the policy and `x_t` for imagined states, a candidate `delta` of the search acts as

    POPLIN-A  INIT     u_t = f(y_t) + delta_t              y: the policy's own rollout in the model, without noise
              REPLAN   u_t = f(x_t) + delta_t
    POPLIN-P  SEP      u_t = f_{theta + delta_t}(x_t)
              UNI      u_t = f_{theta + delta}(x_t)        one noise for all steps

After each trial the policy learns from what planning has found, and the next trial plans around it:

    BC    minimise |f(x) - u|^2 over the trial's states and executed actions       (section 4.3, behaviour cloning)
    AVG   theta <- theta + mean of the trial's first noises                        (POPLIN-P only)

All candidates' networks are one batched product per layer and step (`networks.FlatMLP`). Evaluations play the planner
(`eval/return`) and the policy alone (`eval/policy_return`).

Readings and departures (what the paper leaves out is as in its public code, unless said otherwise):

- Trajectories are the mean of the ensemble's means (propagation E) unless said otherwise; the rollout of INIT always.
- BC takes the real states and actions of the newest trial (the code's BC-AR and BC-PR), 80 % of them to learn from; the
  weights of the epoch with the least error on the rest are kept, where the code stops at the first error that rises.
  Learning from imagined data (BC-AI, BC-PI, AVG-I) and the GAN of section 4.3 are left out.
- The code's AVG assigns the mean noise itself as the new weights; the paper adds it. `variant: reference` assigns.
- Actions are clipped to [-1, 1] in imagination and as they are executed; in the code those of POPLIN-A are not.
- A search goes on from the last one's mean noise without its first step (UNI: with all of it), from 0 in a new episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms.pets import PETS
from lit_mbrl.models import ModelLoss
from lit_mbrl.networks import RunningNormalizer
from lit_mbrl.networks.flat_mlp import FlatMLP
from lit_mbrl.planners import Planner, Search, TruncatedCEM
from lit_mbrl.planners.propagation import Propagation, TrajectorySampler, open_loop
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt, Sizes


class WhitenedPolicy(nn.Module):
    """A perceptron on observations that are normalised by the statistics of real ones, updated between trials."""

    def __init__(self, observation_dim: int, hidden: Sequence[int], action_dim: int) -> None:
        super().__init__()
        self.whitening = RunningNormalizer(observation_dim, (1e-6, 1e6))
        self.network = FlatMLP(observation_dim, hidden, action_dim)

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """The action, not clipped: see `FlatMLP.forward`."""
        return self.network(self.whitening(observation), noise)

    def loss(self, frames: TensorDictBase) -> Tensor:
        """Mean squared error to the executed actions, a scalar."""
        return (self(frames["observation"]) - frames["action"]).square().mean()


@options
class PolicyPlanning(PETS):
    """Distils the planner into a policy network after each trial, for POPLIN-A and POPLIN-P."""

    also_evaluated: ClassVar[tuple[str, ...]] = ("policy",)

    propagation: Propagation = "E"
    """Propagation of uncertainty: see `PETS`."""
    policy_hidden_sizes: Sizes = (64, 64)
    """Hidden layers of the policy network."""
    policy_lr: PositiveFloat = 3e-3
    """Adam's learning rate of behaviour cloning."""
    policy_epochs: PositiveInt = 100
    """Passes over the trial at most."""
    policy_patience: NonNegativeInt = 5
    """Passes without less error on what is held out, after which it ends."""
    policy_batch_size: PositiveInt = 64
    """Frames per gradient step."""
    policy_weight_decay: NonNegativeFloat = 1e-5
    """`decay / 2 |theta|^2` in the loss."""
    policy_holdout: OpenUnitInterval = 0.2
    """Share of the trial that is held out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unbounded = isinstance(self.planner, TruncatedCEM) and self.planner.bound is None
        expected = "lit_mbrl.planners.TruncatedCEM with bound: null, since it searches for noise"
        require(unbounded, "model.planner", type(self.planner).__name__, expected)
        self.policy_fit = {
            "batch_size": self.policy_batch_size,
            "max_epochs": self.policy_epochs,
            "patience": self.policy_patience,
            "improvement": 0.0,
            "holdout_ratio": self.policy_holdout,
        }

    def build(self, spec: Any) -> None:
        self.policy = WhitenedPolicy(spec.observation_dim, self.policy_hidden_sizes, spec.action_dim)
        super().build(spec)

    # ------------------------------------------------------------------ after a trial
    def fit_model(self, replay: Any) -> None:
        """Fits the model to all data, and lets the policy learn from the trial that has ended."""
        trial, planned = self.newest(replay), bool(self.fitted_frames > 0)
        super().fit_model(replay)
        self.policy.whitening.update(trial["observation"])
        if planned:  # and was not the warm-up
            self.distill(trial)

    def distill(self, trial: TensorDictBase) -> None:
        """Lets the policy learn from the newest frames `[N]`."""
        self.clone_behaviour(trial)

    def clone_behaviour(self, trial: TensorDictBase) -> None:
        """BC: fits the policy to the executed actions."""
        if len(trial) < 2:
            return
        policy = self.policy
        decay = {policy.network.weights: self.policy_weight_decay}
        objective = ModelLoss(
            "policy",
            policy,
            policy.loss,
            self.policy_lr,
            error=lambda frames: policy.loss(frames).unsqueeze(0),
            max_grad_norm=self.max_grad_norm,
            weight_decay=decay,
        )
        result = self.fitter.fit(objective, policy, trial, **self.policy_fit)
        self.note({"policy/cloning_error": float(result.errors.mean()), "policy/epochs": float(result.epochs)})

    def further_policy(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        """The policy network alone."""
        return lambda observation, is_init: self.policy_action(observation)

    @torch.no_grad()
    def policy_action(self, observation: Tensor) -> Tensor:
        """Returns the policy network's action, `[..., A]`."""
        return self.policy(observation).clamp(-1.0, 1.0)


@options
class POPLINA(PolicyPlanning):
    """POPLIN-A: the search is for noise on the policy's actions."""

    paper = "Wang and Ba 2019, arXiv 1906.08649"
    default_planner: ClassVar[Callable[[], Planner]] = partial(
        TruncatedCEM, horizon=30, num_candidates=500, num_elites=50, bound=None
    )

    method: Literal["INIT", "REPLAN"] = "REPLAN"
    """INIT adds the noise to the policy's own rollout, REPLAN to its actions in each imagined state."""

    def plan(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Search]:
        """Searches for noise `[B, H, A]` from observations `[B, O]`; returns the first actions `[B, A]`, too."""
        if self.method == "INIT":
            proposal = self.proposal(observation)[:, None]
            search = self.search(observation, memory, open_loop, lambda noise: (proposal + noise).clamp(-1.0, 1.0))
        else:
            search = self.search(observation, memory, self.replan)
        return (self.policy_action(observation) + search.plan[:, 0]).clamp(-1.0, 1.0), search

    def replan(self, noise: Tensor, x: Tensor, step: int) -> Tensor:
        """Acts as the policy does in particles `[G, R, Q, O]`, with the step's noise of `[R, H, A]` (`Controller`)."""
        return (self.policy_action(x) + noise[:, step, None]).clamp(-1.0, 1.0)

    @torch.no_grad()
    def proposal(self, observation: Tensor) -> Tensor:
        """The actions of the policy's rollout from `[B, O]` in the mean of the ensemble, `[B, H, A]`."""
        sampler = self.sampler
        mean = TrajectorySampler(self.dynamics, "E", 1, sampler.reward, sampler.terminated)
        x, actions = mean.spread(observation), []
        for _ in range(self.planner.horizon):
            action = self.policy_action(x)
            actions.append(action[0, :, 0])
            x, _ = mean.step(x, action)
        return torch.stack(actions, 1)


@options
class POPLINP(PolicyPlanning):
    """POPLIN-P: the search is for noise on the policy's weights."""

    paper = "Wang and Ba 2019, arXiv 1906.08649"
    default_planner: ClassVar[Callable[[], Planner]] = partial(
        TruncatedCEM,
        horizon=30,
        num_candidates=500,
        num_elites=50,
        init_std=0.1**0.5,
        min_variance=0.0,
        bound=None,
    )

    policy_hidden_sizes: Sizes = (32,)
    """Hidden layers of the policy network."""
    method: Literal["SEP", "UNI"] = "SEP"
    """SEP searches for a noise of each step, UNI for one of all of them."""
    distillation: Literal["BC", "AVG"] = "AVG"
    """BC clones the executed actions, AVG moves the weights by the mean of the noises that acted."""
    variant: Literal["paper", "reference"] = "paper"
    """AVG as the paper has it, or as its public code (`reference`), which assigns the mean noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.variant == "paper" or self.distillation == "AVG"
        require(fits, "model.variant", self.variant, "paper with model.distillation=BC")
        if self.method == "UNI":
            self.searcher = replace(self.planner, horizon=1)

    def build(self, spec: Any) -> None:
        super().build(spec)
        self.register_buffer("noise_sum", torch.zeros(self.search_dim))
        self.register_buffer("noise_count", torch.zeros((), dtype=torch.long))

    @property
    def search_dim(self) -> int:
        """Weights of the policy network."""
        return self.policy.network.weights.numel()

    def plan(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Search]:
        """Searches for noise `[B, H or 1, W]` from observations `[B, O]`; returns the first actions `[B, A]`, too."""
        search = self.search(observation, memory, self.perturbed)
        return self.perturbed(search.plan, observation[None, :, None], 0)[0, :, 0], search

    @torch.no_grad()
    def perturbed(self, noise: Tensor, x: Tensor, step: int) -> Tensor:
        """Acts in particles `[G, R, Q, O]` as networks whose weights have the step's noise of `[R, H or 1, W]`."""
        groups, rows, each, _ = x.shape
        of_rows = x.transpose(0, 1).reshape(rows, groups * each, -1)
        action = self.policy(of_rows, noise[:, min(step, noise.shape[1] - 1)]).clamp(-1.0, 1.0)
        return action.view(rows, groups, each, -1).transpose(0, 1)

    def shift(self, memory: Tensor) -> Tensor:
        """With UNI the noise is of all steps, and stays."""
        return memory if self.method == "UNI" else super().shift(memory)

    def note_search(self, search: Search) -> None:
        """Adds up the noises that act, for AVG."""
        super().note_search(search)
        self.noise_sum += search.plan[:, 0].sum(0)
        self.noise_count += len(search.plan)

    def distill(self, trial: TensorDictBase) -> None:
        """Lets the policy learn from the trial, by BC or AVG; and forgets its noises."""
        if self.distillation == "BC":
            self.clone_behaviour(trial)
        else:
            with torch.no_grad():
                mean, weights = self.noise_sum / self.noise_count, self.policy.network.weights
                self.note({"policy/step_norm": float(mean.norm())})
                weights.copy_(weights + mean if self.variant == "paper" else mean)
        self.noise_sum.zero_()
        self.noise_count.zero_()
