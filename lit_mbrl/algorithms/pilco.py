"""PILCO: a policy is improved by the analytic gradient of its expected cost in a Gaussian-process model.

Deisenroth and Rasmussen 2011, "PILCO: A Model-Based and Data-Efficient Approach to Policy Search" (ICML), algorithm 1:

    sample controller parameters, apply random controls, record data           (the warm-up, `data.learning_starts`)
    repeat
        learn the probabilistic dynamics model from all data                                       (`fit_model`)
        repeat                                                                                (`improve_policy`)
            approximate inference for policy evaluation: J(theta) = sum_t E[c(x_t)]          (`expected_cost`)
            gradient-based policy improvement: dJ / dtheta, update theta by L-BFGS
        until convergence
        apply the policy, record data                                                        (`explore`)

Inference is `predict`: the state is a Gaussian, whose moments go exactly through angles, policy, squashing and model
(`models.moment_matching`), and what comes out is taken for Gaussian again. No value function is learned, and nothing is
sampled.

A stage, one fit and one improvement, follows the warm-up and the end of each episode. Training steps have no updates.

Readings and departures (what the paper leaves out is the thesis' and the authors' public code's):

- The cost of step t is that of the state after it (`losses.saturating`, `models.costs`) plus `action_weight |u|^2`, by
  which the reward of `pets/CartPole` is 1 minus a cost whose expectation is known. The paper has no cost of actions.
- A policy is squashed by a sine (as in the paper; the public code has `(9 sin x + sin 3x) / 8`).
- The distribution of the first state is given, or that of the first states that have been seen.
- The policy search begins at the present policy and at `policy_restarts - 1` fresh ones; the least cost is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.losses import saturating_cost, saturating_cost_moments
from lit_mbrl.models.costs import KNOWN_COSTS, SaturatingCost
from lit_mbrl.models.gaussian_process import GaussianProcesses, require_gpytorch
from lit_mbrl.models.moment_matching import Gaussian, Kernels, add_change, angle_moments, append, kernel_moments
from lit_mbrl.models.moment_policies import LinearPolicy, RBFPolicy
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.training.lbfgs import flat_parameters, minimize_lbfgs, set_parameters
from lit_mbrl.training.update import Update
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, PositiveInt, Rule

Numbers = tuple[float, ...]


class PredictedStep(NamedTuple):
    """A step of a predicted trajectory: the state after it, its expected cost, and the variance of the state's part."""

    state: Gaussian
    cost: Tensor
    variance: Tensor


@options
class PILCO(Algorithm):
    """Gaussian processes, and a policy that is optimised through their moments.

    `data.batch_size` plays no part: there are no batches.
    """

    paper = "Deisenroth and Rasmussen 2011, ICML"
    cpu_only = True
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("angles", "policy", "num_basis", "horizon")
    normalize_observations: ClassVar[bool] = False  # the model scales its inputs itself

    horizon: PositiveInt = 30
    """Steps of a predicted trajectory."""
    cost: SaturatingCost | None = None
    """The cost; null: one minus the task's reward, where that is known to be of this kind (`pets/CartPole`)."""
    angles: tuple[NonNegativeInt, ...] | None = None
    """Positions of angles in the observation, read as sine and cosine; null: the task's known ones, or none."""
    policy: Literal["rbf", "linear"] = "rbf"
    """Radial basis functions or a linear map, in either case squashed by a sine."""
    num_basis: PositiveInt = 50
    """Radial basis functions."""
    policy_restarts: PositiveInt = 1
    """Searches of a stage: one from the present policy, the others from fresh ones."""
    first_restarts: PositiveInt = 2
    """Searches of the first stage, all of them from fresh policies."""
    policy_iterations: PositiveInt = 75
    """Of L-BFGS, each search."""
    initial_mean: Numbers | None = None
    """Mean of an episode's first observation; null: that of those seen."""
    initial_std: tuple[NonNegativeFloat, ...] | None = None
    """Their standard deviations; null: those of the ones seen, which asks for a warm-up of two episodes or more."""
    max_points: PositiveInt = 300
    """Transitions beyond which the processes are sparse, with so many inducing points."""
    max_signal_to_noise: Annotated[float, Rule("a number > 1", lambda ratio: ratio > 1)] = 1000.0
    """See `models.gaussian_process`."""
    model_restarts: PositiveInt = 2
    """Searches for hyperparameters of each fit: from the last ones, from standard ones, from random ones."""
    model_iterations: PositiveInt = 100
    """Of L-BFGS, each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernels: Kernels | None = None  # of the newest fit; a resumed run makes them again

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        super().check(spec)
        require_gpytorch("model.class_path", "PILCO")
        size, limit = spec.observation_dim, spec.max_episode_steps
        horizon = f"at most {limit}, the steps of an episode of {spec.name}"
        require(limit is None or self.horizon <= limit, "model.horizon", self.horizon, horizon)
        angles = self.angles_of(spec)
        positions = f"different positions from 0 to {size - 1}, in the observation of {spec.name}"
        require(len(set(angles)) == len(angles) and max(angles, default=0) < size, "model.angles", angles, positions)
        cost, width = self.cost_of(spec), size + 2 * len(angles)
        rows = f"rows of {width} numbers: of the observation of {spec.name}, of sines and cosines of its angles"
        require(all(len(row) == width for row in cost.matrix), "model.cost.matrix", cost.matrix, rows)
        for name, given, kind in (("mean", self.initial_mean, ""), ("std", self.initial_std, " >= 0")):
            right = given is None or len(given) == size
            require(right, f"model.initial_{name}", given, f"{size} numbers{kind}, one for each of the observation")

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one, whose models would each be fitted to other data and drift apart."""
        require(count == 1, "trainer.devices", count, "1 with PILCO")

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` unless all data are kept, of one trial after the other."""
        require(data.env.num_envs == 1, "data.env.num_envs", data.env.num_envs, "1: PILCO learns after each trial")
        all_frames = f"at least data.total_frames={data.total_frames}, since PILCO learns from all data"
        require(data.capacity >= data.total_frames, "data.capacity", data.capacity, all_frames)
        limit = data.spec.max_episode_steps
        known = self.initial_std is not None or (limit is not None and data.learning_starts > limit)
        episodes = (
            "standard deviations of an episode's first observation, or data.learning_starts beyond an episode's end"
        )
        require(known, "model.initial_std", "null", episodes)

    def angles_of(self, spec: Any) -> tuple[int, ...]:
        """Returns the angles' positions."""
        return spec.features.angles if self.angles is None else self.angles

    def cost_of(self, spec: Any) -> SaturatingCost:
        """Returns the cost.

        Raises:
            OptionError: if none is given, and none is known.
        """
        known = None if spec.reward is None else KNOWN_COSTS.get(spec.name)
        cost = known if self.cost is None else self.cost
        if cost is None:
            raise OptionError(
                "model.cost", "null", f"matrix, target and width: no cost of {spec.name} is known as it is"
            )
        return cost

    def build(self, spec: Any) -> None:
        size, angles, actions = spec.observation_dim, self.angles_of(spec), spec.action_dim
        cost = self.cost_of(spec)
        self.angle_index = list(angles)
        # Positions in (observation, sines, cosines, action): of all but the angles themselves.
        self.policy_inputs = [i for i in range(size + 2 * len(angles)) if i not in angles]
        self.model_inputs = [*self.policy_inputs, *range(size + 2 * len(angles), size + 2 * len(angles) + actions)]
        inputs = len(self.policy_inputs)
        self.actor = (
            RBFPolicy(inputs, actions, self.num_basis) if self.policy == "rbf" else LinearPolicy(inputs, actions)
        )
        self.model = GaussianProcesses(
            len(self.model_inputs),
            size,
            self.max_points,
            self.max_signal_to_noise,
            self.model_restarts,
            self.model_iterations,
        )
        self.width, self.action_weight = cost.width, cost.action_weight
        double: dict[str, Any] = {"dtype": torch.float64}
        self.register_buffer("cost_matrix", torch.tensor(cost.matrix, **double), persistent=False)
        self.register_buffer("cost_target", torch.tensor(cost.target, **double), persistent=False)
        self.register_buffer("fitted_frames", torch.zeros((), dtype=torch.long))
        # Mean and standard deviation of the newest prediction's costs, for metrics and pictures.
        self.register_buffer("predicted_cost", torch.full((2, self.horizon), torch.nan, **double))

    def updates(self) -> Iterator[Update]:
        """None: see `fit_model` and `improve_policy`."""
        yield from ()

    # ------------------------------------------------------------------ algorithm 1: stages
    def before_collect(self, data: Any) -> None:
        """Makes the first stage at the end of the warm-up."""
        if data.schedule.due("first fit", every=data.total_frames):
            self.learn(data.replay)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Makes another one whenever an episode has ended."""
        super().after_collect(data, frames)
        ended = (frames["next", "terminated"] | frames["next", "truncated"]).any()
        if ended and data.schedule.clock is not None:
            self.learn(data.replay)

    def learn(self, replay: Any) -> None:
        """Makes a stage: learns the model from all data, and improves the policy in it."""
        frames = replay.frames()
        if self.fitted_frames > 0:
            self.note_surprise(frames)
        self.fit_model(frames)
        self.improve_policy(frames)

    def fit_model(self, frames: TensorDictBase) -> None:
        """Learns the dynamics from frames `[N]`."""
        self.kernels = self.model.fit(*self.regression(frames), notify=self.notify_progress)
        self.fitted_frames.fill_(len(frames))
        self.note(
            {
                "model/log_evidence": float(self.model.log_evidence.sum()),
                "model/signal_to_noise": float((self.model.signal / self.model.noise).log().mean().exp()),
                "model/points": float(self.kernels.points.shape[1]),
            }
        )

    def regression(self, frames: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Returns the model's inputs `[N, D]` and what it predicts, changes of the observation `[N, O]`."""
        observation, action = frames["observation"].double(), frames["action"].double()
        inputs = torch.cat([self.augment(observation), action], -1)[:, self.model_inputs]
        return inputs, frames["next", "observation"].double() - observation

    def note_surprise(self, frames: TensorDictBase) -> None:
        """Notes how likely the frames since the last fit were to it, and what they cost beside what was predicted."""
        count = int(self.fitted_frames)
        inputs, changes = self.regression(frames)
        if self.kernels is None:
            self.kernels = self.model.posterior(inputs[:count], changes[:count])
        mean, variance = self.kernels.predict(inputs[count:])
        variance = variance.clamp(min=0.0) + self.model.noise.square()
        nll = (changes[count:] - mean).square() / variance + variance.log()
        self.note({"model/holdout_nll": float(nll.mean())})
        if self.episode_starts(frames)[count]:  # and the warm-up has not ended in the middle of an episode
            realised = self.realised_cost(frames[count:])[: self.horizon]
            gap = (realised - self.predicted_cost[0, : len(realised)]).abs().mean()
            self.note({"policy/realised_cost": float(realised.mean()), "policy/cost_gap": float(gap)})

    # ------------------------------------------------------------------ algorithm 1: policy search
    def improve_policy(self, frames: TensorDictBase) -> None:
        """Minimises the expected cost by L-BFGS with its analytic gradient, and notes what it predicts."""
        start, first = self.start_states(frames), int(self.model.fits) == 1
        seen = self.augment(frames["observation"].double())[:, self.policy_inputs]
        present, found = flat_parameters(self.actor), []
        for restart in range(self.first_restarts if first else self.policy_restarts):
            if first or restart > 0:
                self.actor.initialize(seen)
            else:
                set_parameters(self.actor, present)

            def report(cost: float, search: int = restart + 1) -> None:
                self.notify_progress(f"policy search {search}: expected cost {cost / self.horizon:.3f} per step")

            objective = partial(self.expected_cost, start)
            found.append(minimize_lbfgs(self.actor, objective, self.policy_iterations, report))
        best = min(found, key=lambda each: each.value)
        set_parameters(self.actor, best.parameters)
        self.keep_prediction(start)
        self.note(
            {
                "policy/predicted_cost": best.value / self.horizon,
                "policy/gradient_norm": best.gradient_norm,
                "policy/evaluations": float(sum(each.evaluations for each in found)),
            }
        )

    @torch.no_grad()
    def keep_prediction(self, start: Gaussian) -> None:
        """Keeps what the policy's next episode is predicted to cost."""
        steps = [torch.stack([step.cost, step.variance.sqrt()]) for step in self.predict(start)]
        self.predicted_cost.copy_(torch.stack(steps, 1))

    def predict_costs(self) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation `[H]` of the costs that the newest stage has predicted."""
        return self.predicted_cost[0], self.predicted_cost[1]

    def expected_cost(self, start: Gaussian) -> Tensor:
        """Computes `J = sum_t E[c_t]`, a scalar."""
        return torch.stack([step.cost for step in self.predict(start)]).sum()

    def predict(self, x: Gaussian) -> Iterator[PredictedStep]:
        """Predicts the policy's trajectory from a distribution of states, one step after the other (section 2.2)."""
        kernels = self.kernels
        assert kernels is not None  # of the newest fit
        act = self.actor.frozen()
        z = self.augment_moments(x)
        for _ in range(self.horizon):
            action = act(z.take(self.policy_inputs))
            joint = append(z, action, self.policy_inputs)
            change = kernel_moments(joint.take(self.model_inputs), kernels)
            x = add_change(x, joint, change, self.model_inputs)
            z = self.augment_moments(x)
            cost, variance = self.cost_moments(z)
            effort = action.mean.square().sum() + action.covariance.diagonal().sum()
            yield PredictedStep(x, cost + self.action_weight * effort, variance)

    # ------------------------------------------------------------------ states and costs
    def augment(self, observation: Tensor) -> Tensor:
        """Appends sines and cosines of the angles to observations `[..., O]`."""
        angle = observation[..., self.angle_index]
        return torch.cat([observation, angle.sin(), angle.cos()], -1)

    def augment_moments(self, x: Gaussian) -> Gaussian:
        """Appends them to a distribution."""
        return append(x, angle_moments(x.take(self.angle_index)), self.angle_index) if self.angle_index else x

    def cost_moments(self, z: Gaussian) -> tuple[Tensor, Tensor]:
        """Computes mean and variance of the cost of an augmented state, without that of the action."""
        matrix = self.cost_matrix
        distance = z.mean @ matrix.T - self.cost_target
        return saturating_cost_moments(distance, matrix @ z.covariance @ matrix.T, self.width)

    def realised_cost(self, frames: TensorDictBase) -> Tensor:
        """Computes the cost of each of the frames `[N]`, `[N]`."""
        distance = self.augment(frames["next", "observation"].double()) @ self.cost_matrix.T - self.cost_target
        effort = frames["action"].double().square().sum(-1)
        return saturating_cost(distance, self.width) + self.action_weight * effort

    def start_states(self, frames: TensorDictBase) -> Gaussian:
        """Returns the distribution of an episode's first observation, given or of those among the frames `[N]`."""
        first = frames["observation"].double()[self.episode_starts(frames)]
        mean = first.mean(0) if self.initial_mean is None else torch.tensor(self.initial_mean, dtype=torch.float64)
        if self.initial_std is not None:
            return Gaussian(mean, torch.diag(torch.tensor(self.initial_std, dtype=torch.float64).square()))
        return Gaussian(mean, torch.cov(first.T, correction=0))

    @staticmethod
    def episode_starts(frames: TensorDictBase) -> Tensor:
        """Returns which of the frames `[N]` are the first of an episode, `[N]`."""
        following = frames["next"]
        first = (following["terminated"] | following["truncated"]).squeeze(-1).roll(1)
        first[0] = True
        return first

    # ------------------------------------------------------------------ acting
    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """The policy's action `[N, A]`: the paper explores by the uncertainty of its model alone."""
        return self.act(observation)

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """The policy's action `[N, A]`."""
        return self.actor(self.augment(observation.double())[..., self.policy_inputs]).to(observation.dtype)
