"""PETS: planning with the cross-entropy method in a probabilistic ensemble, with particles; no policy is learned.

Chua et al. 2018, "Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models" (arXiv
1805.12114v2), algorithm 1:

    a trial with random actions
    for each trial: fit the ensemble to all data                      (`before_collect`, `after_collect`)
        for each step: search for an action sequence whose particles, moved by the ensemble, earn most
                       take its first action, keep the rest as the beginning of the next search         (`explore`)

The ensemble is `models.TaskEnsemble`, the movements of particles are in `planners.propagation`, the search is
`planners.TruncatedCEM`. Training steps have no updates: all that is learned is learned in the fits.

Readings and departures (what the paper leaves out is the public code's):

- The trial with random actions is the warm-up, `data.learning_starts` steps; a fit follows at its end and whenever an
  episode of any environment has ended since.
- A fit takes `model_epochs` passes over all data, each member over its own bootstrap sample, goes on from the last
  weights and keeps those of the last pass: nothing is held out. The hold-out that `model/holdout_nll` is about are the
  frames since the last fit, before they are learned from.
- A reward or a termination of the task that is not known to us is learned (the reward) or not imagined (the
  termination); the paper knows the reward and has no terminations.
- An evaluation plans as the collection does, with random numbers of a fixed seed, so that it is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.models import TaskEnsemble
from lit_mbrl.models.ensemble import default_decays
from lit_mbrl.networks.ensemble import Activation
from lit_mbrl.planners import ModelObjective, Planner, Search, TruncatedCEM
from lit_mbrl.planners.derivatives import is_differentiable
from lit_mbrl.planners.memory import PlanMemory
from lit_mbrl.planners.propagation import Controller, Propagation, TrajectorySampler, check_particles, open_loop
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.training.compiled_function import CompiledFunction
from lit_mbrl.training.model_fit import FitsModels, ModelFitter
from lit_mbrl.training.update import Update
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Sizes

_EVAL_SEED = 0


@options
class PETS(FitsModels, Algorithm):
    """A probabilistic ensemble and a planner.

    `data.batch_size` plays no part: there are no batches but those of the fits.
    """

    paper = "Chua et al. 2018, arXiv 1805.12114"
    default_planner: ClassVar[Callable[[], Planner]] = TruncatedCEM
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("reward",)
    normalize_observations: ClassVar[bool] = False  # the model scales its inputs itself

    planner: Planner | None = None
    """Any of `lit_mbrl.planners`; null: PETS' cross-entropy method with 400 candidates of 25 steps. `ILQR` plans in the
    ensemble's mean, `propagation: E`."""
    propagation: Propagation = "TSinf"
    """Propagation of uncertainty, TSinf, TS1, DS, MM or E (`planners.propagation`)."""
    particles: NonNegativeInt | None = None
    """Per candidate; null: 20, or 1 with E."""
    num_members: PositiveInt = 5
    """Networks of the ensemble."""
    hidden_sizes: Sizes = (200, 200, 200)
    """Hidden layers of each network."""
    activation: Activation = "swish"
    """Between the layers: swish, relu or tanh."""
    weight_decay: tuple[NonNegativeFloat, ...] | None = None
    """Of each layer in turn, the last one included; `decay / 2 |W|^2` in the loss. Null: `models.default_decays`."""
    model_lr: PositiveFloat = 1e-3
    """Adam's learning rate."""
    model_batch_size: PositiveInt = 32
    """Frames per member and gradient step of a fit."""
    model_epochs: PositiveInt = 5
    """Passes over all data of a fit."""
    reward: Literal["known", "learned", "auto"] = "auto"
    """Known (`envs/tasks/rewards.py`), learned by the ensemble, or auto: known where it is."""
    chunk: PositiveInt = 10_000
    """Particles imagined at a time, which bounds the memory of planning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.particles is None:
            self.particles = 1 if self.propagation == "E" else 20
        check_particles(self.propagation, self.particles, self.num_members)
        layers = len(self.hidden_sizes) + 1
        self.weight_decay = default_decays(layers) if self.weight_decay is None else self.weight_decay
        each = f"{layers} numbers >= 0, one for each of model.hidden_sizes and one for the last layer"
        require(len(self.weight_decay) == layers, "model.weight_decay", list(self.weight_decay), each)
        self.planner = type(self).default_planner() if self.planner is None else self.planner
        plain = f"E with model.planner={type(self.planner).__name__}, which needs a model without random numbers"
        needs = self.planner.needs_gradient and self.propagation != "E"
        require(not needs, "model.propagation", self.propagation, plain)
        self.searcher = self.planner  # what searches; the planner's horizon is that of the imagined trajectories
        self.fit_options = {"batch_size": self.model_batch_size, "epochs": self.model_epochs}
        self.fitter = ModelFitter(self)

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        super().check(spec)
        if self.reward == "known" and spec.reward is None:
            known = f"learned or auto: envs/tasks/rewards.py knows no reward of {spec.name} as it is configured"
            raise OptionError("model.reward", "known", known)
        limit = spec.max_episode_steps
        horizon = f"at most {limit}, the steps of an episode of {spec.name}"
        require(limit is None or self.planner.horizon <= limit, "model.planner.horizon", self.planner.horizon, horizon)
        if self.planner.needs_gradient:
            self.check_gradient(spec)

    def check_gradient(self, spec: Any) -> None:
        """Raises `OptionError` if a planner by gradients cannot plan for a task."""
        size, name, planner = spec.observation_dim, spec.name, type(self.planner).__name__
        both, infinite = torch.ones(1, size + spec.action_dim), torch.full((1, size), torch.inf)
        x, u = both[:, :size], both[:, size:]
        # A rule that lets even an infinite observation pass is that of a task which never terminates.
        ends = spec.terminated is not None and bool(spec.terminated(x, u, infinite).any())
        goes_on = f"a planner without gradients, as TruncatedCEM, for {name}, whose terminations have none"
        require(not ends, "model.planner", planner, goes_on)
        reward = None if self.reward == "learned" else spec.reward
        smooth = reward is None or is_differentiable(lambda z: reward(z[:, :size], z[:, size:], z[:, :size]), both)
        learned = f"learned with model.planner={planner}: the known reward of {name} has no gradient"
        require(smooth, "model.reward", self.reward, learned)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` for more than one, whose models would each be fitted to other data and drift apart."""
        require(count == 1, "trainer.devices", count, f"1 with {type(self).__name__}")

    def build(self, spec: Any) -> None:
        reward = None if self.reward == "learned" else spec.reward
        self.dynamics = TaskEnsemble(
            spec.observation_dim,
            spec.action_dim,
            spec.features,
            reward is None,
            self.num_members,
            self.hidden_sizes,
            self.activation,
            self.weight_decay,
        )
        self.sampler = TrajectorySampler(
            self.dynamics, self.propagation, self.particles, reward, spec.terminated, self.chunk
        )
        self.memory = PlanMemory(self.searcher, self.search_dim)
        self.register_buffer("fitted_frames", torch.zeros((), dtype=torch.long))

    def on_fit_start(self) -> None:
        """Compiles, where `model.compile` asks for it, the step of the particles that every search takes most."""
        super().on_fit_start()
        if self.compile_option:
            step = type(self.sampler).move.__get__(self.sampler)
            self.sampler.move = CompiledFunction(step, "planning")  # type: ignore[method-assign]

    @property
    def search_dim(self) -> int:
        """Length of the vectors that the planner searches for, one per step of a plan: here actions."""
        return self.spec.action_dim

    def updates(self) -> Iterator[Update]:
        """None: see `fit_model`."""
        yield from ()

    # ------------------------------------------------------------------ algorithm 1: the model
    def before_collect(self, data: Any) -> None:
        """Fits the model at the end of the warm-up."""
        if data.schedule.due("first fit", every=data.total_frames):
            self.fit_model(data.replay)

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Fits it again whenever a trial has ended."""
        super().after_collect(data, frames)
        ended = (frames["next", "terminated"] | frames["next", "truncated"]).any()
        if ended and data.schedule.clock is not None:
            self.fit_model(data.replay)

    def fit_model(self, replay: Any) -> None:
        """Fits the ensemble to all data, and notes how likely the newest were before it had learned from them."""
        frames = replay.frames().to(self.device)
        if self.fitted_frames > 0:
            self.note({"model/holdout_nll": float(self.dynamics.mean_nll(self.newest(replay)))})
        self.fitted_frames.fill_(replay.written)

        def report(epoch: int, loss: Tensor) -> None:
            self.notify_progress(f"fitting the model: epoch {epoch}, loss {float(loss):.3g}")

        objective = self.dynamics.objective(self.model_lr, self.max_grad_norm)
        steps = self.fitter.fit_epochs(objective, self.dynamics, frames, on_epoch=report, **self.fit_options)
        self.finite.flush()
        self.note({"model/fit_steps": float(steps)})

    def newest(self, replay: Any) -> TensorDictBase:
        """Returns the frames since the last fit, `[N]`."""
        first = max(int(self.fitted_frames), replay.oldest)
        return replay.frames()[replay.slots(torch.arange(first, replay.written))].to(self.device)

    # ------------------------------------------------------------------ algorithm 1: the actions
    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """Plans, and remembers the plan for the next step; the action `[B, A]` itself is not disturbed."""
        action, search = self.plan(observation, self.memory.recall(is_init))
        self.memory.keep(self.shift(search.memory))
        self.note_search(search)
        return action

    def plan(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Search]:
        """Searches for plans from observations `[B, O]`; returns the first actions `[B, A]`, too."""
        search = self.search(observation, memory, open_loop)
        return search.plan[:, 0], search

    def search(
        self,
        observation: Tensor,
        memory: Tensor,
        controller: Controller,
        plans: Callable[[Tensor], Tensor] = lambda candidates: candidates,
    ) -> Search:
        """Searches for what makes a controller earn most in the model, one batch for all environments' candidates.

        Args:
            controller: see `planners.propagation`.
            plans: what the controller reads, of the candidates `[B, N, H, A]`.
        """
        horizon = self.planner.horizon

        def objective(candidates: Tensor) -> Tensor:
            self._model_rollouts += candidates.shape[0] * candidates.shape[1] * self.particles * horizon
            return self.sampler.returns(observation, plans(candidates), controller, horizon)

        draws = self.searcher.draws(len(observation), memory.shape[-1], observation.device)
        if self.searcher.needs_gradient:
            return self.searcher.search(ModelObjective(observation, self.model_step), draws, memory)
        return self.searcher.search(objective, draws, memory)

    def model_step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts next observations `[R, O]` and rewards `[R]` by the ensemble's mean, for planners by gradients."""
        self._model_rollouts += len(state)
        x, u = state[None, :, None], action[None, :, None]
        following, reward = self.sampler.step(x, u)
        if self.sampler.reward is not None:
            reward = self.sampler.reward(x, u, following)
        assert reward is not None
        return following[0, :, 0], reward[0, :, 0, 0]

    def shift(self, memory: Tensor) -> Tensor:
        """Returns where the next step's search begins, from what this one's has found: the rest of its sequences."""
        return self.searcher.shift(memory)

    def note_search(self, search: Search) -> None:
        """Notes cost and spread of the newest plans."""
        self.note(
            {
                "plan/cost": -float(search.elite_return.mean()),
                "plan/elite_variance": float(search.elite_variance.mean()),
                "plan/iterations": float(search.iterations),
            }
        )

    @torch.no_grad()
    def predict_trajectories(self, observation: Tensor, actions: Tensor) -> Tensor:
        """The particles of action sequences `[B, H, A]` from observations `[B, O]`, `[B, P, H + 1, O]`, to look at."""
        return self.sampler.trajectories(observation, actions, open_loop, actions.shape[1])

    def lose_track(self) -> None:
        """Plans anew everywhere, since an episode has begun."""
        self.memory.forget()

    def act(self, observation: Tensor) -> Tensor:
        """The planned action at the first observations of episodes."""
        start = torch.ones(len(observation), 1, dtype=torch.bool, device=observation.device)
        return self.eval_policy()(observation, start)

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The planner with a memory of its own, and random numbers that go on from a fixed seed."""
        memory = PlanMemory(self.searcher, self.search_dim)
        generator = torch.Generator().manual_seed(_EVAL_SEED)

        def policy(observation: Tensor, is_init: Tensor) -> Tensor:
            with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]), torch.no_grad():
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                rollouts = self._model_rollouts
                action, search = self.plan(observation, memory.recall(is_init))
                self._model_rollouts = rollouts  # of the collection alone
            memory.keep(self.shift(search.memory))
            return action

        return policy
