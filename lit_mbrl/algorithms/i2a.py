"""Imagination-augmented agents: A2C that sees imagined rollouts of each action beside its observation.

Weber et al. 2017, "Imagination-Augmented Agents for Deep Reinforcement Learning" (arXiv 1707.06203v2). The procedure is
`stages`:

    1. train a model-free agent                                            `loss`
    2. collect what it does                                                a replay beside the rollouts
    3. fit the environment model to that (section 3.1)                     `model_loss`
    4. train an agent that imagines (section 3.2), the model frozen        `imagination_loss`
       and the rollout policy to be like it (section 3.1)                  `distillation_loss`

The agent of stage 4 starts anew. Its features are of the encoded rollouts, one for each action, and of a model-free
path beside them (`networks.ImaginationEncoder`); policy and value are linear in them. All rollouts of all environments
are one batch (`models.imagine_frames`).

Readings and departures:

- A2C with RMSProp (`a2c.py`) in the place of asynchronous workers.
- Rollouts are a constant of the loss: frames are the most probable ones, as in public implementations. Those that the
  agent has acted on are kept for the gradient step, since the rollout policy draws others each time.
- A rollout's encoding is a vector before they are put together; rewards are numbers of their classes beside the frame,
  where the paper has planes of their values. The model does not know, as the paper's, that nothing follows on an end.
- The rollout policy has an optimiser of its own (Adam), where the paper's loss has its cross-entropy, too.
- `environment_model: copy` is the paper's ablation; its run has stage 4 alone. A poor model is one with few
  `model_steps`; `fine_tune` goes on fitting the model in stage 4 (the lecture's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.algorithms.a2c import A2C
from lit_mbrl.losses import class_loss, distillation_loss, frame_loss
from lit_mbrl.models import Cells, CopyModel, FrameModel, FrameModelConfig, FrameRollouts, imagine_frames, to_planes
from lit_mbrl.networks import (
    ActorCritic,
    CategoricalActor,
    GridEncoder,
    ImaginationEncoder,
    ImpalaEncoder,
    RolloutEncoder,
    grid_convolutions,
    orthogonal_layer,
    orthogonal_mlp,
)
from lit_mbrl.training.algorithm import Update
from lit_mbrl.training.stages import Stage
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Rule

Rewards = Annotated[
    tuple[float, ...], Rule("different numbers, at most 255", lambda table: 0 < len(set(table)) == len(table) < 256)
]
Palette = Annotated[
    tuple[tuple[int, int, int], ...],
    Rule(
        "two colours [r, g, b] or more, from 0 to 255", lambda t: len(t) > 1 and all(0 <= x < 256 for c in t for x in c)
    ),
]
_INPUTS = ("observation", "imagined_frames", "imagined_rewards")
_TOLERANCE = 1e-3  # by which a reward may differ from that of the table


@options
class I2A(A2C):
    """A2C on imagined rollouts, in a model that is fitted to what a model-free agent did; images of a few pixels."""

    paper = "Weber et al. 2017, arXiv 1707.06203"
    pixels: ClassVar[bool | None] = True
    normalize_observations: ClassVar[bool] = False  # no option here, nor the next ones
    anneal_lr: ClassVar[bool] = False
    hidden_sizes: ClassVar[None] = None
    init_log_std: ClassVar[float] = 0.0
    fixed_on_resume = ("scale_rewards",)
    stage_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "model_free": ("encoder", "model_free_frames"),
        "data": ("data_frames",),
        "model": ("palette", "rewards", "frame_model", "model_steps", "model_batch_size", "model_lr", "reward_scale"),
        "i2a": (
            *("environment_model", "depth", "model_free_path", "rollout_channels"),
            *("encoding", "units", "policy_channels", "fine_tune"),
        ),
    }

    encoder: ImpalaEncoder | GridEncoder | None = GridEncoder()
    """The convolutional network of the model-free agent, and of the model-free path beside the rollouts."""
    environment_model: Literal["learned", "copy"] = "learned"
    """What imagines: a model, or copies of the frame, which are no prediction."""
    depth: PositiveInt = 5
    """Steps of a rollout, tau."""
    model_free_path: bool = True
    """Let policy and value see features of the observation, too."""
    rollout_channels: PositiveInt = 16
    """Channels of the rollout encoder's convolution and of its convolutional LSTM."""
    encoding: PositiveInt = 64
    """Numbers that a rollout is encoded into."""
    units: PositiveInt = 256
    """Features of rollouts and model-free path together."""
    policy_channels: PositiveInt = 16
    """Channels of the rollout policy's convolution."""
    distillation_lr: PositiveFloat = 1e-3
    """Adam's learning rate of the rollout policy."""
    palette: Palette | None = None
    """Colours of the classes of pixels; null: an observation has a channel for each class, 255 where it is."""
    rewards: Rewards = (-0.1, 0.9, -1.1, 10.9, 9.9)
    """The rewards that there are, by default Sokoban's."""
    frame_model: FrameModelConfig = FrameModelConfig()
    """Sizes of the environment model."""
    model_free_frames: NonNegativeInt = 200_000
    """Environment steps of the model-free agent; 0: what is collected then are those of an untrained one, random."""
    data_frames: PositiveInt = 50_000
    """Environment steps that are collected for the model, and kept."""
    model_steps: PositiveInt = 5_000
    """Training steps of the model."""
    model_batch_size: PositiveInt = 64
    """Frames of each."""
    model_lr: PositiveFloat = 1e-3
    """Adam's learning rate of the model."""
    reward_scale: NonNegativeFloat = 1.0
    """Weight of the reward's cross-entropy in nats beside that of a pixel."""
    fine_tune: bool = False
    """Go on fitting the model, one training step after each rollout; otherwise it is frozen."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen: list[dict[str, Tensor]] | None = None  # of the steps of the running collection

    # ------------------------------------------------------------------ the procedure
    def stages(self, data: Any) -> Sequence[Stage]:
        """Four, or the last one alone with copies in the place of a model."""
        imagining = ("i2a", "rollout_policy") + ("model",) * self.fine_tune
        if self.environment_model == "copy":
            return [Stage("i2a", imagining, env_steps=data.total_frames)]
        left = data.total_frames - self.model_free_frames - self.data_frames
        return [
            Stage("model_free", ("model_free",), env_steps=self.model_free_frames),
            Stage("data", (), env_steps=self.data_frames),
            Stage("model", ("model",), train_steps=self.model_steps),
            Stage("i2a", imagining, env_steps=left),
        ]

    def start_stage(self, data: Any, name: str) -> None:
        """Lets the agent that imagines take over in its stage, and drops the data that a frozen model needs no more."""
        if name == "i2a":
            self.imagines.fill_(True)
            if "frames" in data.buffers and not self.fine_tune:
                data.buffers["frames"] = data.buffer_specs["frames"].make(self.device)

    def updates(self) -> Iterator[Update]:
        step: dict[str, Any] = {"step": self.rmsprop(), "eps": self.eps, "max_grad_norm": self.max_grad_norm}
        yield Update("model_free", self.model_free, self.loss, self.lr, **step)
        if self.environment_model == "learned":
            yield Update("model", self.model, self.model_loss, self.model_lr, "frames")
        agent, gives = [self.encoder, self.actor, self.critic], ("policy",)
        yield Update("i2a", agent, self.imagination_loss, self.lr, gives=gives, **step)
        yield Update("rollout_policy", self.rollout_policy, self.distillation_loss, self.distillation_lr, takes=gives)

    def before_collect(self, data: Any) -> None:
        self._seen = [] if self.imagines else None

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Computes the rollout's returns, and keeps it for the model where that is to be fitted."""
        super().after_collect(data, frames)
        self._seen = None
        if "frames" in data.buffers and (data.update_schedule.stage.name == "data" or self.fine_tune):
            self.check_frames(frames)
            data.buffers["frames"].extend(frames)

    def add_buffers(self, data: Any) -> None:
        if self.environment_model == "learned":
            data.add_replay("frames", self.data_frames, "model.data_frames")

    def sample(self, data: Any) -> dict[str, Any]:
        """The rollout, for an agent that learns; frames `[B]` for the model."""
        stage = data.update_schedule.stage.name
        fits = stage == "model" or (stage == "i2a" and self.fine_tune)
        frames = data.buffers["frames"].sample_transitions(self.model_batch_size) if fits else None
        learns = stage in ("model_free", "i2a")
        return {"frames": frames, "transitions": super().sample(data)["transitions"] if learns else None}

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        """See `Algorithm.check`; actions are discrete, and images have the palette's channels."""
        super().check(spec)
        if not spec.discrete:
            raise OptionError("data.env.name", spec.name, "an environment with discrete actions, one rollout for each")
        channels = f"null: the images of {spec.name} have {spec.observation_shape[0]} channels"
        require(self.palette is None or spec.observation_shape[0] == 3, "model.palette", self.palette, channels)

    def check_data(self, data: Any) -> None:
        """See `A2C.check_data`; stages are of whole rollouts, and the last one has some."""
        super().check_data(data)
        copies, frames = self.environment_model == "copy", data.frames_per_batch
        tuned = "false with model.environment_model=copy, which there is nothing to fit of"
        require(not (copies and self.fine_tune), "model.fine_tune", self.fine_tune, tuned)
        whole = f"a multiple of {frames}, the frames of a rollout (data.rollout_steps x data.env.num_envs)"
        sizes = {"model.model_free_frames": self.model_free_frames, "model.data_frames": self.data_frames}
        for option, size in ({} if copies else sizes).items():
            require(size % frames == 0, option, size, whole)
        before = 0 if copies else sum(sizes.values())
        more = f"{whole}, and more than {before}, which model.model_free_frames and model.data_frames take"
        require(
            data.total_frames % frames == 0 and data.total_frames > before, "data.total_frames", data.total_frames, more
        )

    def check_devices(self, count: int) -> None:
        require(count == 1, "trainer.devices", count, "1 for I2A")

    def build(self, spec: Any) -> None:
        actions, (channels, height, width) = spec.action_dim, spec.observation_shape
        self.classes = channels if self.palette is None else len(self.palette)
        self.cells = Cells(self.palette)
        self.model_free = ActorCritic(*self.make_encoder(spec), actions)
        learned = self.environment_model == "learned"
        model = self.frame_model.build(self.classes, actions, self.rewards) if learned else CopyModel()
        self.model: FrameModel | CopyModel = model
        self.rollout_policy = nn.Sequential(
            grid_convolutions(self.classes, [self.policy_channels]),
            nn.Flatten(),
            orthogonal_layer(nn.Linear(self.policy_channels * height * width, actions), 0.01),
        )
        sizes = height, width, self.rollout_channels, self.encoding
        rollouts = RolloutEncoder(self.classes, len(self.rewards), *sizes)
        path, features = self.make_encoder(spec) if self.model_free_path else (None, 0)
        self.encoder = ImaginationEncoder(rollouts, self.encoding, actions, path, features, self.units)
        self.actor = CategoricalActor(self.units, actions, [])
        self.critic = orthogonal_mlp(self.units, [], 1, gain=1.0)
        self.imagines = nn.Buffer(torch.zeros((), dtype=torch.bool))  # whether that agent acts, and not the model-free

    # ------------------------------------------------------------------ section 3: imagination
    def imagine(self, observation: Tensor) -> FrameRollouts:
        """Imagines `depth` steps after each action at observations `[N, C, h, w]`."""
        actions, shape = self.spec.action_dim, (self.depth - 1, len(observation))
        draws = torch.empty(*shape, actions, actions, device=observation.device).exponential_()
        cells = self.cells(observation)
        return imagine_frames(self.model, self.rollout_policy, cells, self.classes, -draws.log())

    def features(self, observation: Tensor, imagined_frames: Tensor, imagined_rewards: Tensor) -> Tensor:
        """Features `[N, F]` of observations and their rollouts (`FrameRollouts`): encodings and model-free path."""
        planes = to_planes(imagined_frames, self.classes)
        rewards = F.one_hot(imagined_rewards.long(), len(self.rewards)).to(planes.dtype)
        return self.encoder(observation, planes, rewards)

    def imagined_features(self, observation: Tensor) -> Tensor:
        """Features `[N, F]` of observations, on rollouts that are drawn now."""
        rollouts = self.imagine(observation)
        inputs = dict(zip(_INPUTS, (observation.clone(), rollouts.frames, rollouts.rewards), strict=True))
        features = self.features(**inputs)
        if self._seen is not None:
            self._seen.append(inputs | {"features": features})
        return features

    # ------------------------------------------------------------------ acting
    def act(self, observation: Tensor) -> Tensor:
        with self._precision():
            if self.imagines:
                return self.actor.mode(self.imagined_features(observation))
            return self.model_free.actor.mode(self.model_free.encoder(observation))

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        with self._precision():
            if self.imagines:
                return self.actor.sample(self.imagined_features(observation))
            return self.model_free.actor.sample(self.model_free.encoder(observation))

    def value(self, observation: Tensor) -> Tensor:
        if self.imagines:
            return self.critic(self.imagined_features(observation))
        return self.model_free.critic(self.model_free.encoder(observation))

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `RolloutAgent.evaluate`; of the model-free agent."""
        features = self.model_free.encoder(observation)
        return *self.model_free.actor.log_prob_entropy(features, action), self.model_free.critic(features)

    # ------------------------------------------------------------------ a rollout
    def further_inputs(self, observation: Tensor) -> dict[str, Tensor]:
        """The rollouts that the agent has acted on, and its features of them, `[T, N, ...]`."""
        seen, self._seen = self._seen or [], None
        if not self.imagines:
            return {}
        acted_on = [step["observation"] for step in seen]
        if len(seen) != len(observation) or not all(map(torch.equal, acted_on, observation)):
            # An environment has been restarted in between.
            self._seen = seen = []
            for step in observation:
                self.imagined_features(step)
            self._seen = None
        return {name: torch.stack([step[name] for step in seen]) for name in seen[0] if name != "observation"}

    def evaluate_frames(self, frames: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if not self.imagines:
            return super().evaluate_frames(frames)
        features = frames["features"]
        return *self.actor.log_prob_entropy(features, frames["action"]), self.critic(features)

    def minibatch(self, rollout: TensorDictBase, index: Tensor) -> TensorDictBase:
        """See `RolloutAgent.minibatch`; without the features, which the loss computes anew, for its gradient."""
        return super().minibatch(rollout.exclude("features"), index)

    # ------------------------------------------------------------------ losses
    def model_loss(self, batch: TensorDictBase) -> Tensor:
        """Cross-entropies of the next frame's pixels and of the reward, of transitions `[B]`."""
        assert isinstance(self.model, FrameModel)
        following = batch["next"]
        predicted = self.model(to_planes(self.cells(batch["observation"]), self.classes), batch["action"])
        cells, label = self.cells(following["observation"]), self.model.reward_class(following["reward"])
        frame, reward = frame_loss(predicted.frame, cells).mean(), class_loss(predicted.reward, label).mean()
        self.record("model/frame_loss", frame)
        self.record("model/reward_class_loss", reward)
        if self._recording:
            whole = (predicted.frame.argmax(1) == cells).flatten(1).all(1)
            self.record("model/frame_accuracy", whole.float().mean())
            self.record("model/reward_accuracy", (predicted.reward.argmax(-1) == label[:, 0]).float().mean())
        return frame + self.reward_scale * reward

    def imagination_loss(self, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
        """A2C's loss of the agent that imagines; and its log-probabilities `[B, A]`, a constant."""
        features = self.features(*(batch[key] for key in _INPUTS))
        log_prob, entropy = self.actor.log_prob_entropy(features, batch["action"])
        loss = self.objective(batch, log_prob, entropy, self.critic(features))
        return loss, self.actor.distribution(features).detach()

    def distillation_loss(self, batch: TensorDictBase, policy: Tensor) -> Tensor:
        """Cross-entropy of the rollout policy and the agent's, `-sum_a pi(a) log pi_hat(a)` (appendix)."""
        logits = self.rollout_policy(to_planes(self.cells(batch["observation"]), self.classes))
        return distillation_loss(logits, policy).mean()

    def check_frames(self, frames: TensorDictBase) -> None:
        """Raises `OptionError` if frames have pixels of no class, or a reward that is not in the table."""
        known = self.cells.known(frames["observation"].to(self.device))
        if not known.all():
            at = (~known).nonzero()[0].tolist()
            pixel = frames["observation"].movedim(-3, -1)[tuple(at)].tolist()
            raise OptionError("model.palette", self.palette, f"the classes of all pixels, as of {pixel}")
        reward, table = frames["next", "reward"], torch.tensor(self.rewards)
        far = (reward - table).abs().amin(-1) > _TOLERANCE
        if far.any():
            missing = round(float(reward[far][0]), 4)
            raise OptionError("model.rewards", self.rewards, f"all rewards, {missing} among them")
