"""Policy distillation: a small network that learns to act as a trained agent does.

Rusu et al. 2015, "Policy Distillation" (arXiv 1511.06295v2); the lecture on learned world models distils the rollout
policy of imagination-augmented agents by

    L(theta) = E[D_KL(student(x) || teacher(x))]

which is the default of `divergence`; Rusu et al.'s eq. 3 has the other direction, of which the cross-entropy of Weber
et al. 2017 (arXiv 1707.06203, appendix) is the part that depends on the student. The states are those of a rollout of
the teacher, or of the student itself; `after_collect` asks the teacher what it would do in them. No reward is used.

Teachers are checkpoints of agents whose policy is a distribution: those of rollouts (PPO, TRPO, ...), SAC and all that
have its actor, and DQN, whose policy is the softmax of `Q / temperature` as in Rusu et al.

Readings and departures:

- Rusu et al. keep the teacher's states in a replay; here each rollout is learned from for `data.num_epochs` and thrown
  away. Their game has the teacher act with epsilon 0.05; it draws from its policy here.
- With `acting: student` the student visits the states, and the teacher says what it would do there, as in DAgger (Ross
  et al. 2011, arXiv 1011.0686) without its mixture.
- A teacher's statistics of observations are copied, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms.dqn import DQN
from lit_mbrl.losses import categorical_kl, diagonal_normal_kl
from lit_mbrl.networks import CategoricalActor, GaussianActor, ImpalaEncoder, TanhGaussianActor
from lit_mbrl.training.algorithm import Algorithm, Update
from lit_mbrl.training.loading import load_frozen
from lit_mbrl.training.rollouts import RolloutAgent
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import PositiveFloat, Sizes

Kind = Literal["categorical", "gaussian", "tanh_gaussian"]
_ROWS = 1024  # states in which a teacher is asked at a time
_SOFTMAX_OF_VALUES = 0.01  # temperature of Rusu et al.


@options
class PolicyDistillation(Algorithm):
    """A student policy with the smallest divergence from a teacher's (`data.OnPolicy`)."""

    paper = "Rusu et al. 2015, arXiv 1511.06295"
    learns_from = "rollouts"
    continuous_actions = False  # discrete ones, too
    pixels = None  # vectors or images
    fixed_on_resume = (*Algorithm.fixed_on_resume, "policy")

    teacher: str | None = None
    """Checkpoint of the teacher, which training needs, but not the trained student."""
    divergence: Literal["student_teacher", "teacher_student"] = "student_teacher"
    """What is minimised: `"student_teacher"`, D_KL(student || teacher), or `"teacher_student"`,
    D_KL(teacher || student)."""
    acting: Literal["teacher", "student"] = "teacher"
    """Who visits the states that are learned from."""
    policy: Literal["tanh_gaussian", "gaussian"] = "tanh_gaussian"
    """Kind of the policy for continuous actions, that of the teacher: SAC's, or PPO's."""
    temperature: PositiveFloat | None = None
    """Divides the teacher's values, or log-probabilities, before the softmax; null: 0.01 for values, and 1."""
    hidden_sizes: Sizes = (32,)
    """Hidden layers of the student."""
    encoder: ImpalaEncoder | None = None
    """Of images only: the student's convolutional layers before those; null: IMPALA's with the sizes of its paper."""
    lr: PositiveFloat = 1e-3
    """Adam's learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_options = take(self, "encoder")
        self._teacher: list[Any] = []  # in a list: it is no part of the student

    # ------------------------------------------------------------------ construction
    def build(self, spec: Any) -> None:
        features, hidden = spec.observation_dim, list(self.hidden_sizes)
        self.encoder: nn.Module = nn.Identity()
        if spec.pixels:
            network = (self.encoder_options or ImpalaEncoder()).build(spec.observation_shape)
            self.encoder, features = network, network.features
        self.actor: CategoricalActor | GaussianActor | TanhGaussianActor
        if spec.discrete:
            self.actor = CategoricalActor(features, spec.action_dim, hidden)
        elif self.policy == "gaussian":
            self.actor = GaussianActor(features, spec.action_dim, hidden)
        else:
            self.actor = TanhGaussianActor(features, spec.action_dim, hidden)

    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; vectors need no encoder, and discrete actions no kind of policy."""
        super().check(spec)
        images = f"null: the observations of {spec.name} are no images"
        require(self.encoder_options is None or spec.pixels, "model.encoder", self.encoder_options, images)
        none = f"left out: the actions of {spec.name} are discrete"
        require(self.policy == "tanh_gaussian" or not spec.discrete, "model.policy", self.policy, none)

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` if evaluation would draw from the policy that explores, where that is the teacher's."""
        of_student = data.eval_actions == "mode" or self.acting == "student"
        alone = "mode with model.acting=teacher: evaluation is of the student"
        require(of_student, "data.eval_actions", data.eval_actions, alone)

    def check_start(self, spec: Any) -> None:
        """Loads the teacher."""
        if self._teacher:
            return
        require(self.teacher is not None, "model.teacher", "null", "the checkpoint of a trained agent")
        path = str(self.teacher)
        teacher = load_frozen(path, "model.teacher", spec)
        name, kind = type(teacher).__name__, kind_of(teacher)
        stochastic = f"the checkpoint of an agent whose policy is a distribution (SAC's, PPO's, DQN's), not {name}'s"
        require(kind is not None, "model.teacher", path, stochastic)
        own = "categorical" if spec.discrete else self.policy
        require(kind == own, "model.policy", self.policy, f"{kind}, as {name}'s")
        discrete = f"null for {name}, which has neither values nor probabilities of actions"
        require(self.temperature is None or spec.discrete, "model.temperature", self.temperature, discrete)
        same = f"{teacher.normalize_observations}, as its teacher, whose statistics it takes"
        ours = self.normalize_observations
        require(ours == teacher.normalize_observations, "model.normalize_observations", ours, same)
        self._teacher.append(teacher)

    def on_fit_start(self) -> None:
        """Moves the teacher to the device, and copies its statistics of observations."""
        super().on_fit_start()
        teacher = self._teacher[0].to(self.device)
        if self.normalizer is not None:
            self.normalizer.load_state_dict(teacher.normalizer.state_dict())
        policies = [teacher.critic] if isinstance(teacher, DQN) else [teacher.actor, getattr(teacher, "encoder", None)]
        sizes = [_parameters(*policies), _parameters(self.encoder, self.actor)]
        rank_zero_info(f"teacher: {type(teacher).__name__}, {sizes[0]:,} parameters; student: {sizes[1]:,}")

    def updates(self) -> Iterator[Update]:
        """One gradient step of the student."""
        yield Update("student", [self.encoder, self.actor], self.student_loss, self.lr)

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.mode(self.encoder(observation))

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        if self.acting == "teacher":
            return draw(self.teacher_distribution(observation), self.kind)
        return draw(self.distribution(observation), self.kind)

    @property
    def also_evaluated(self) -> tuple[str, ...]:  # type: ignore[override]
        """The teacher, while it is there."""
        return ("teacher",) if self._teacher else ()

    def further_policy(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the teacher's own deterministic policy."""
        policy = self._teacher[0].eval_policy()
        return lambda observation, is_init: policy(observation, is_init)

    # ------------------------------------------------------------------ the policies
    @property
    def kind(self) -> Kind:
        """Returns the kind of both policies."""
        return "categorical" if self.spec.discrete else self.policy

    def distribution(self, observation: Tensor) -> Tensor:
        """The student's policy in numbers `[..., P]`: log-probabilities, or mean and log standard deviation."""
        return _distribution(self.actor, self.encoder(observation))

    @torch.no_grad()
    def teacher_distribution(self, observation: Tensor) -> Tensor:
        """The teacher's policy, alike."""
        teacher = self._teacher[0]
        if isinstance(teacher, DQN):
            return (teacher.critic(observation) / (self.temperature or _SOFTMAX_OF_VALUES)).log_softmax(-1)
        features = teacher.encoder(observation) if isinstance(teacher, RolloutAgent) else observation
        numbers = _distribution(teacher.actor, features)
        return numbers if self.temperature is None else (numbers / self.temperature).log_softmax(-1)

    # ------------------------------------------------------------------ what a training step learns from
    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Asks the teacher what its policy is in the states `[N, T]` of a rollout, once for all epochs."""
        observation = self.normalize(frames["observation"].to(self.device)).transpose(0, 1)
        parts = [self.teacher_distribution(rows) for rows in observation.flatten(0, 1).split(_ROWS)]
        teacher = torch.cat(parts).unflatten(0, observation.shape[:2])
        data.rollout = TensorDict({"observation": observation, "teacher": teacher}, observation.shape[:2])

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """The next minibatch `[B]` of the rollout."""
        index = data.minibatch_index()
        rows = {key: value.flatten(0, 1).index_select(0, index) for key, value in data.rollout.items()}
        return {"transitions": TensorDict(rows, index.shape)}

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself: observations are normalised already."""
        return batch

    def student_loss(self, batch: TensorDictBase) -> Tensor:
        """Mean divergence between the two policies."""
        student, teacher = self.distribution(batch["observation"]), batch["teacher"]
        divergence = categorical_kl if self.kind == "categorical" else diagonal_normal_kl
        first, second = (student, teacher) if self.divergence == "student_teacher" else (teacher, student)
        if self.kind == "categorical":
            self.record("policy/agreement", lambda: (student.argmax(-1) == teacher.argmax(-1)).float().mean())
        else:
            self.record("policy/action_error", lambda: self._action_error(student, teacher))
        return divergence(first, second).mean()

    def _action_error(self, student: Tensor, teacher: Tensor) -> Tensor:
        actions = [_mode(numbers, self.kind) for numbers in (student, teacher)]
        return (actions[0] - actions[1]).norm(dim=-1).mean()


def kind_of(agent: Algorithm) -> Kind | None:
    """Returns the kind of an agent's policy, None if it is no distribution that is known here."""
    actor = getattr(agent, "actor", None)
    if isinstance(agent, DQN) or (isinstance(agent, RolloutAgent) and isinstance(actor, CategoricalActor)):
        return "categorical"
    if isinstance(agent, RolloutAgent) and isinstance(actor, GaussianActor):
        return "gaussian"
    return "tanh_gaussian" if isinstance(actor, TanhGaussianActor) else None


def draw(numbers: Tensor, kind: Kind) -> Tensor:
    """Draws actions from a policy in numbers `[N, P]`: `[N]` indices, or `[N, A]`."""
    if kind == "categorical":
        # The largest of independent Gumbel variables around the log-probabilities.
        return (numbers - torch.empty_like(numbers).exponential_().log()).argmax(-1)
    mean, log_std = numbers.chunk(2, -1)
    action = mean + log_std.exp() * torch.randn_like(mean)
    return torch.tanh(action) if kind == "tanh_gaussian" else action


def _distribution(actor: Any, features: Tensor) -> Tensor:
    if isinstance(actor, TanhGaussianActor):
        return torch.cat(actor(features), -1)
    return actor.distribution(features)


def _mode(numbers: Tensor, kind: Kind) -> Tensor:
    mean = numbers.chunk(2, -1)[0]
    return torch.tanh(mean) if kind == "tanh_gaussian" else mean.clamp(-1.0, 1.0)


def _parameters(*modules: nn.Module | None) -> int:
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())
