"""Base of Dreamer and PlaNet: a latent world model that learns from sequences, and the state that acting carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import free_nats, gaussian_kl, pixel_loss, termination_loss, unit_gaussian_loss
from lit_mbrl.models import Latent, LatentWorldModel, Posterior, TimeOrder
from lit_mbrl.networks import glorot_, to_uint8
from lit_mbrl.training.algorithm import Algorithm, SequenceBatchSpec, Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt


class StartStates(NamedTuple):
    """The posterior states of a training step's sequences, constants, from which the behaviour imagines.

    | field | shape | |
    |---|---|---|
    | `latent` | `[N, ...]` | the states |
    | `counts` | `[N, 1]` | how much each counts: 0 where the episode has ended, if the model knows such states |
    """

    latent: Latent
    counts: Tensor


class PolicyState(nn.Module):
    """Keeps latent state and last action of each environment's running episode; in every checkpoint.

    Args:
        sizes: D, S and A.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.state: Tensor | None = None

    def recall(self, like: Tensor) -> tuple[Latent, Tensor]:
        """State and last action of `len(like)` environments; zeros if there is nothing to remember of so many."""
        if self.state is None or len(self.state) != len(like):
            self.state = like.new_zeros(len(like), sum(self.sizes), dtype=torch.float32)
        deter, stoch, action = self.state.to(like.device).split(self.sizes, dim=-1)
        return Latent(deter, stoch), action

    def keep(self, latent: Latent, action: Tensor) -> None:
        """Remembers for the next step."""
        self.state = torch.cat([*latent, action], dim=-1).detach()

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.state is None else self.state

    def set_extra_state(self, state: Tensor) -> None:
        self.state = state if state.numel() else None


@options
class LatentAgent(Algorithm):
    """An agent that learns an RSSM world model from sequences of images or vectors (`data.SequenceReplay`)."""

    pixels: ClassVar[bool | None] = None
    learns_from = "sequences"
    decode_from_stoch: ClassVar[bool] = False
    activation: ClassVar[type[nn.Module]] = nn.ELU
    bits: ClassVar[int] = 8
    normalize_observations: ClassVar[bool] = False  # no option here

    deter: PositiveInt = 200
    """Deterministic units D of the state."""
    stoch: PositiveInt = 30
    """Stochastic units S of the state."""
    hidden: PositiveInt = 200
    """Width of the RSSM's layers."""
    depth: PositiveInt = 32
    """Channels of the first convolution."""
    units: PositiveInt = 400
    """Width of the heads' layers; for vectors also of encoder and decoder."""
    reward_layers: PositiveInt = 2
    """Hidden layers of the reward head."""
    termination: bool = False
    """Learn whether an episode has ended in a state."""
    termination_layers: PositiveInt = 3
    """Hidden layers of that head."""
    time_order: TimeOrder = "act_first"
    """Of acting and observing in the RSSM (`models.rssm`)."""
    kl_scale: NonNegativeFloat = 1.0
    """Weight of the divergence of posterior and prior."""
    free_nats: NonNegativeFloat = 3.0
    """Divergence that costs nothing."""
    reward_scale: NonNegativeFloat = 1.0
    """Weight of the reward's likelihood."""
    termination_scale: NonNegativeFloat = 10.0
    """Weight of the termination's likelihood."""
    model_lr: PositiveFloat = 6e-4
    """Adam's learning rate of the whole model."""
    adam_eps: PositiveFloat = 1e-7
    """Epsilon of every Adam; TensorFlow's, which the public codes have, is ten times PyTorch's."""
    max_grad_norm: PositiveFloat = 100.0
    """Bound of every gradient's norm."""

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        super().check(spec)
        if spec.pixels:
            require(
                tuple(spec.observation_shape[1:]) == (64, 64),
                "data.env.pixels.size",
                spec.observation_shape[-1],
                "64, which the convolutions are made for",
            )

    def check_data(self, data: Any) -> None:
        least = 3 if self.time_order == "blind_start" else 2
        require(data.sequence_length >= least, "data.sequence_length", data.sequence_length, f"at least {least}")

    def build(self, spec: Any) -> None:
        self.action_dim = spec.action_dim
        shape = spec.observation_shape
        self.world_model = LatentWorldModel(
            shape,
            spec.action_dim,
            self.deter,
            self.stoch,
            self.hidden,
            self.depth,
            self.layers(self.reward_layers),
            self.layers(self.termination_layers) if self.termination else None,
            self.time_order,
            self.decode_from_stoch,
            self.activation,
            self.bits,
        )
        glorot_(self.world_model)
        self.memory = PolicyState(self.deter, self.stoch, spec.action_dim)

    def layers(self, number: int) -> list[int]:
        """So many hidden layers of `units`."""
        return [self.units] * number

    def updates(self) -> Iterator[Update]:
        """The model alone."""
        yield self.update("model", self.world_model, self.model_loss, self.model_lr, gives=("start_states",))

    def update(self, name: str, module: nn.Module, loss: Callable[..., Any], lr: float, **options: Any) -> Update:
        """An update on the training step's sequences, with the bound on its gradient and Adam's epsilon."""
        options |= {"max_grad_norm": self.max_grad_norm, "eps": self.adam_eps}
        return Update(name, module, loss, lr, "sequences", **options)

    def sampling(self) -> SequenceBatchSpec:
        return SequenceBatchSpec(sequence_batches=1)

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself: images are scaled in the loss, and vectors are not normalised."""
        return batch

    # ------------------------------------------------------------------ the model
    def model_loss(self, batch: TensorDictBase) -> tuple[Tensor, StartStates]:
        """Minus the evidence lower bound (Dreamer eq. 10, MaxEnt Dreamer eq. 3-4), mean over batch and time.

        Frames that only fill up a short sequence (`"mask"` False) do not count. Second are the posterior states.

        | key | shape | |
        |---|---|---|
        | `observation` | `[B, T, C, 64, 64]` uint8 or `[B, T, O]` | `o_t` |
        | `action` | `[B, T, A]` | that led to `o_t` |
        | `reward` | `[B, T, 1]` | that came with `o_t` |
        | `terminated` | `[B, T, 1]` bool | whether the episode has ended in `o_t` |
        | `mask` | `[B, T, 1]` bool | whether this is a frame of the episode |
        """
        model, first = self.world_model, self.world_model.rssm.first
        image = model.prepare(batch["observation"])
        observed = model.observe(model.encode(image), batch["action"])
        feature = observed.latent.feature
        counts = batch["mask"][:, first:]

        def mean(values: Tensor) -> Tensor:
            return (values * counts).sum() / counts.sum().clamp(min=1)

        likelihood = pixel_loss if model.pixels else unit_gaussian_loss
        parts = {"image": mean(likelihood(model.decode(observed.latent), image[:, first:]))}
        parts["reward"] = mean(self.reward_error(model.reward(feature), batch["reward"][:, first:]))
        logit = model.termination(feature)
        if logit is not None:
            parts["termination"] = mean(termination_loss(logit, batch["terminated"][:, first:]))
        scales = {"reward": self.reward_scale, "termination": self.termination_scale}
        loss = sum((scales.get(name, 1.0) * part for name, part in parts.items()), self.kl_loss(observed, mean))
        for name, part in parts.items():
            self.record(f"model/{name}_loss", part)
        alive = counts if logit is None else counts & ~batch["terminated"][:, first:]
        return loss, StartStates(observed.latent.detach().flatten(), alive.flatten(0, 1).to(feature.dtype))

    def kl_loss(self, observed: Posterior, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """Computes the weighted KL divergence of posterior and prior, with the mean's free nats (the public code's)."""
        kl = mean(gaussian_kl(observed.mean, observed.std, observed.prior_mean, observed.prior_std))
        self.record("model/kl", kl)
        return self.kl_scale * free_nats(kl, self.free_nats)

    def reward_error(self, predicted: Tensor, reward: Tensor) -> Tensor:
        """Minus the reward's log-likelihood, `[..., 1]`."""
        return unit_gaussian_loss(predicted, reward)

    # ------------------------------------------------------------------ acting
    def filter_state(
        self, latent: Latent, action: Tensor, observation: Tensor, is_first: Tensor, noise: Tensor | None
    ) -> Latent:
        """Returns the posterior state of an observation `[N, *O]` after the `action [N, A]` that led to it.

        Args:
            noise: of the state, `[N, S]`; None: the posterior's mean, and nothing else is random either.
        """
        model = self.world_model
        embed = model.encode(model.prepare(observation, dither=noise is not None))
        noise = torch.zeros_like(latent.stoch) if noise is None else noise
        return model.rssm.obs_step(latent, action, embed, is_first, noise)

    def before_collect(self, data: Any) -> None:
        if data.schedule.clock is not None:  # the policy acts
            self.catch_up(data.replay)

    def catch_up(self, replay: Any) -> None:
        """Filters the running episodes so far, if nothing is remembered of them: after the random warm-up.

        The public codes have no such case, because their warm-ups are whole episodes. Not step by step during the
        warm-up, because the model may have been pre-trained since.

        Args:
            replay: a `data.buffers.episodes.EpisodeReplay`.
        """
        past = None if self.memory.state is not None else replay.running_episodes()
        if past is None:
            return
        with torch.no_grad():
            past = past.to(self.device)
            latent, _ = self.memory.recall(past["action"])
            for frame in past.unbind(1)[:-1]:  # the last one is what `explore` is shown next
                noise = self.world_model.rssm.noise(len(frame))
                latent = self.filter_state(latent, frame["action"], frame["observation"], frame["is_first"], noise)
            self.memory.keep(latent, past["action"][:, -1])

    def lose_track(self) -> None:
        """Forgets all episodes, so that the next `catch_up` filters them."""
        self.memory.state = None

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        with torch.no_grad():
            latent, action = self.memory.recall(observation)
            noise = self.world_model.rssm.noise(len(observation))
            latent = self.filter_state(latent, action, observation, is_init, noise)
            action = self.exploration_action(latent)
            self.memory.keep(latent, action)
            return action

    def act(self, observation: Tensor) -> Tensor:
        """The deterministic action at the first observations of episodes."""
        return self.eval_policy()(
            observation, torch.ones(len(observation), 1, dtype=torch.bool, device=observation.device)
        )

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """A deterministic policy with a memory of its own: means of the posterior, where the public codes draw."""
        memory = PolicyState(*self.memory.sizes)

        def play(observation: Tensor, is_init: Tensor) -> Tensor:
            with torch.no_grad():
                latent, action = memory.recall(observation)
                latent = self.filter_state(latent, action, observation, is_init, None)
                action = self.greedy_action(latent)
                memory.keep(latent, action)
                return action

        return play

    def exploration_action(self, latent: Latent) -> Tensor:
        """Returns the action `[N, A]` of collecting."""
        raise NotImplementedError

    def greedy_action(self, latent: Latent) -> Tensor:
        """Returns the action `[N, A]` of an evaluation."""
        raise NotImplementedError

    # ------------------------------------------------------------------ to look at
    @torch.no_grad()
    def reconstruct(self, sequence: TensorDictBase, context: int) -> dict[str, Tensor]:
        """Images as the model sees them, uint8 `[B, T, C, 64, 64]`, for `lit_mbrl.callbacks.OpenLoopPredictions`.

        `"reconstruction"`: decoded from posterior states, which have seen each image. `"imagined"`: the same for the
        first `context` images, and from there on by the prior, with the real actions.

        Args:
            sequence: `[B, T]` with the keys of a batch.
            context: images that the imagination has seen.
        """
        model, first = self.world_model, self.world_model.rssm.first
        action = sequence["action"].to(self.device)
        image = model.prepare(sequence["observation"].to(self.device), dither=False)
        embed = model.encode(image)
        zeros = torch.zeros(*embed.shape[:2], self.stoch, device=embed.device)
        latent = model.rssm.observe(embed, action, zeros).latent
        last = Latent(latent.deter[:, context - 1 - first], latent.stoch[:, context - 1 - first])
        imagined = [model.decode(Latent(latent.deter[:, : context - first], latent.stoch[:, : context - first]))]
        for t in range(context, action.shape[1]):
            last = model.rssm.img_step(last, action[:, t], zeros[:, t])
            imagined.append(model.decode(last).unsqueeze(1))
        unseen = [torch.zeros_like(image[:, :first])]  # an image that the order `blind_start` never looks at
        return {
            "reconstruction": to_uint8(torch.cat([*unseen, model.decode(latent)], 1)),
            "imagined": to_uint8(torch.cat([*unseen, *imagined], 1)),
        }
