"""World Models: a code of images, a memory that predicts codes, and a small controller by evolution.

Ha and Schmidhuber 2018, "World Models" (arXiv 1803.10122v4). The procedure of section 3.2 is `stages`:

    1. collect rollouts with random policies          `explore`
    2. train the VAE (V) on single images             `vae_loss`
    3. train the MDN-RNN (M) on their codes           `rnn_loss`
    4. evolve the controller (C) by CMA-ES            `controller_loss`

C is evolved in the environment (section 3, CarRacing) or inside the dream of M alone, at a temperature (section 4,
Doom), and is then evaluated in the environment in either case.

Readings and departures: codes are drawn, not their means, everywhere, and anew for each batch, as in the public code.
M's gradient is bounded by its norm, where the public code bounds each entry. Random policies are random controllers
(Cauchy weights, scale uniform in [0, 0.01], for each episode) on the untrained V and M, whose weights the public code
draws anew, too. Dreams begin at any stored image instead of an episode's first. The public code's weight decay rewards
large weights by its sign; ours penalises them. The evaluated policy is the mean of the search. M may predict the
reward, which the paper's does not; without it a dream's return is the number of steps alive. Environment steps of the
controller's stage are counted in `controller/env_steps`, and not in `env_steps`, the clock of the stored data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.losses import mixture_nll, standard_normal_kl, termination_loss, vae_loss
from lit_mbrl.models import MDNRNN, VAE, Memory
from lit_mbrl.models.vae import unit_image
from lit_mbrl.networks import to_uint8
from lit_mbrl.training.algorithm import Algorithm
from lit_mbrl.training.evolution import CMAES
from lit_mbrl.training.population import Controllers, Player, antithetic_rows, dream_returns, play_returns
from lit_mbrl.training.stages import Stage
from lit_mbrl.training.update import Update
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt


class Episodes(nn.Module):
    """Keeps the controller and the memory of each environment's running episode; in every checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.state is None else self.state

    def set_extra_state(self, state: Tensor) -> None:
        self.state = state if state.numel() else None


@options
class WorldModels(Algorithm):
    """A VAE, an MDN-RNN and a linear controller, each in a stage of its own (`data.SequenceReplay`, images)."""

    paper = "Ha and Schmidhuber 2018, arXiv 1803.10122"
    pixels: ClassVar[bool | None] = True
    continuous_actions: ClassVar[bool] = False
    learns_from = "sequences"
    normalize_observations: ClassVar[bool] = False  # no option here
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("epochs_per_stage",)
    stage_options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "collect": ("collect_policy",),
        "vae": ("latent", "depth", "vae_steps", "vae_batch_size", "vae_lr", "kl_tolerance"),
        "rnn": ("hidden", "mixtures", "termination", "reward", "rnn_steps", "rnn_lr", "termination_scale"),
        "controller": (
            *("train_in", "use_h", "generations", "population", "episodes", "sigma", "weight_decay"),
            *("temperature", "dream_steps", "controller_envs"),
        ),
    }

    collect_policy: Literal["random_networks", "random"] = "random_networks"
    """Policies that collect: networks of random weights, others in each episode, or uniformly random actions."""
    latent: PositiveInt = 32
    """Numbers Z of an image's code."""
    depth: PositiveInt = 32
    """Channels of the VAE's first convolution."""
    vae_steps: PositiveInt = 1_000
    """Training steps of the VAE."""
    vae_batch_size: PositiveInt = 100
    """Images of each."""
    vae_lr: PositiveFloat = 1e-4
    """Adam's learning rate of the VAE."""
    kl_tolerance: NonNegativeFloat = 0.5
    """Divergence per number of the code that costs nothing."""
    hidden: PositiveInt = 256
    """Units D of the LSTM."""
    mixtures: PositiveInt = 5
    """Gaussians for each number of the next code."""
    termination: bool = False
    """Predict whether the episode ends."""
    reward: bool = False
    """Predict the reward."""
    termination_scale: NonNegativeFloat = 10.0
    """Weight of the likelihood of that."""
    rnn_steps: PositiveInt = 1_000
    """Training steps of the MDN-RNN, on `data.batch_size` sequences each."""
    rnn_lr: PositiveFloat = 1e-3
    """Adam's learning rate of the MDN-RNN."""
    rnn_max_grad_norm: PositiveFloat = 1.0
    """Bound of the MDN-RNN's gradient's norm."""
    train_in: Literal["environment", "dream"] = "environment"
    """Where the controller is evolved."""
    use_h: bool = True
    """Show the controller the LSTM's state besides the image's code."""
    generations: PositiveInt = 100
    """Generations of CMA-ES, each a training step."""
    population: PositiveInt = 64
    """Candidates of each."""
    episodes: PositiveInt = 16
    """Episodes of each candidate; the mean return counts."""
    sigma: PositiveFloat = 0.1
    """CMA-ES's first step size."""
    weight_decay: NonNegativeFloat = 0.0
    """Penalty of a candidate's mean squared weight."""
    temperature: PositiveFloat = 1.0
    """Of the dream's mixtures."""
    dream_steps: PositiveInt = 1_000
    """Steps after which a dream ends."""
    controller_envs: PositiveInt = 4
    """Copies of the environment in which candidates are evaluated side by side; `data.env.workers` puts them into
    processes."""
    epochs_per_stage: PositiveInt = 4
    """Evaluations, and checkpoints, of each stage after the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._envs: Any = None
        self._make_envs: Callable[[int], Any] | None = None

    # ------------------------------------------------------------------ the procedure
    def stages(self, data: Any) -> Sequence[Stage]:
        fits = (("vae", self.vae_steps), ("rnn", self.rnn_steps), ("controller", self.generations))
        # Collecting has a training step without updates at each epoch's end, so that it is evaluated and saved, too.
        collect = Stage("collect", (), env_steps=data.total_frames, utd_ratio=Fraction(1, data.epoch_frames))
        return [
            collect,
            *(Stage(name, (name,), steps, epoch_steps=-(-steps // self.epochs_per_stage)) for name, steps in fits),
        ]

    def updates(self) -> Iterator[Update]:
        yield Update("vae", self.vae, self.vae_loss, self.vae_lr, "frames")
        bound = self.rnn_max_grad_norm
        yield Update("rnn", self.rnn, self.rnn_loss, self.rnn_lr, "rollouts", max_grad_norm=bound)
        step = partial(CMAES, population=self.population, weight_decay=self.weight_decay)
        yield Update("controller", self.controller, self.controller_loss, self.sigma, "starts", step=step)

    def sample(self, data: Any) -> dict[str, Any]:
        """Images `[B]`, sequences `[B, T]` or where dreams start `[E]`, whichever the running stage learns from."""
        stage, replay = data.update_schedule.stage.name, data.replay
        batch: dict[str, Any] = {"frames": None, "rollouts": None, "starts": None}
        if stage == "vae":
            batch["frames"] = replay.sample(self.vae_batch_size, 1, "windows")[:, 0]
        elif stage == "rnn":
            batch["rollouts"] = replay.sample(
                data.batch_size, data.sequence_length, data.episode_choice, data.short_episodes
            )
        elif stage == "controller":
            self._make_envs = data.make_env
            batch["starts"] = replay.sample(self.episodes, 1, "windows")[:, 0]
        return batch

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        super().check(spec)
        size, expected = spec.observation_shape[-2:], "64, which the convolutions are made for"
        require(tuple(size) == (64, 64), "data.env.pixels.size", size[-1], expected)
        limited = "a number: episodes of this environment have no limit of their own"
        in_env = self.train_in == "environment"
        require(spec.max_episode_steps is not None or not in_env, "data.env.max_episode_steps", None, limited)
        of_dream = self.train_in == "environment" or self.termination or self.reward
        known = "true (or model.reward) with model.train_in=dream, or all dreams have the same return"
        require(of_dream, "model.termination", self.termination, known)
        require(self.population > 1, "model.population", self.population, "an integer > 1")

    def check_devices(self, count: int) -> None:
        require(count == 1, "trainer.devices", count, "1 for World Models")

    def build(self, spec: Any) -> None:
        self.vae = VAE(spec.observation_shape[0], self.latent, self.depth)
        self.rnn = MDNRNN(self.latent, spec.action_dim, self.hidden, self.mixtures, self.termination, self.reward)
        self.controller = nn.Linear(self.latent + self.use_h * self.hidden, spec.action_dim)
        for parameter in self.controller.parameters():
            nn.init.zeros_(parameter)  # where the search begins
        self.acting = Episodes()
        self.controller_env_steps = nn.Buffer(torch.zeros((), dtype=torch.long))

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch itself."""
        return batch

    # ------------------------------------------------------------------ losses
    def encode(self, image: Tensor) -> Tensor:
        """Draws codes `[..., Z]` of images."""
        mean, std = self.vae.encode(image)
        return mean + std * torch.randn_like(mean)

    def vae_loss(self, batch: TensorDictBase) -> Tensor:
        """Squared error plus divergence beyond `kl_tolerance` (appendix A.1), of images `[B, C, 64, 64]`."""
        image = unit_image(batch["observation"])
        mean, std = self.vae.encode(image)
        decoded = self.vae.decode(mean + std * torch.randn_like(mean))
        kl = standard_normal_kl(mean, std)
        self.record("model/image_loss", (decoded - image).square().flatten(1).sum(-1).mean())
        self.record("model/kl", kl.mean())
        return vae_loss(decoded, image, kl, self.kl_tolerance * self.latent).mean()

    def rnn_loss(self, batch: TensorDictBase) -> Tensor:
        """Minus the likelihood of the next codes (appendix A.2), and of the heads that there are.

        | key | shape | |
        |---|---|---|
        | `observation` | `[B, T, C, 64, 64]` uint8 | `o_t` |
        | `action` | `[B, T, A]` | that led to `o_t` |
        | `reward`, `terminated` | `[B, T, 1]` | that came with `o_t` |
        | `mask` | `[B, T, 1]` bool | whether this is a frame of the episode |
        """
        with torch.no_grad():
            z = self.encode(batch["observation"])
        counts = batch["mask"][:, 1:]

        def mean(values: Tensor) -> Tensor:
            return (values * counts).sum() / counts.sum().clamp(min=1)

        h, _ = self.rnn(z[:, :-1], batch["action"][:, 1:])
        predicted = self.rnn.predict(h)
        loss = mean(mixture_nll(predicted.log_weight, predicted.mean, predicted.log_std, z[:, 1:]))
        self.record("model/code_loss", loss)
        if predicted.termination is not None:
            termination = mean(termination_loss(predicted.termination, batch["terminated"][:, 1:]))
            self.record("model/termination_loss", termination)
            loss = loss + self.termination_scale * termination
        if predicted.reward is not None:
            reward = mean((predicted.reward - batch["reward"][:, 1:]).square())
            self.record("model/reward_loss", reward)
            loss = loss + reward
        return loss

    def controller_loss(self, batch: TensorDictBase, candidates: Tensor) -> Tensor:
        """Minus the mean return `[P]` of each candidate `[P, n]`, in the environment or in dreams from `[E]` images."""
        population = len(candidates)
        controllers = self._controllers(candidates.repeat_interleave(self.episodes, 0))
        streams = antithetic_rows(population, self.episodes)
        count = int(streams.max()) + 1
        if self.train_in == "dream":
            z, device = self.encode(batch["observation"]).repeat(population, 1), candidates.device
            rows, shape = streams.to(device), (count, self.latent)
            draw = (lambda: torch.rand(shape, device=device)[rows], lambda: torch.randn(shape, device=device)[rows])
            returns = dream_returns(self.rnn, controllers, z, *draw, self.dream_steps, self.temperature)
        else:
            if self._envs is None:
                assert self._make_envs is not None  # `sample` comes first
                self._envs = self._make_envs(self.controller_envs)
            seeds = torch.randint(2**31 - 1, (count,))[streams].tolist()
            returns, steps = play_returns(self._envs, Player(self.vae.encode, self.rnn), controllers, seeds)
            self.controller_env_steps += steps
            self.note({"controller/env_steps": float(self.controller_env_steps)})
        return -returns.view(population, self.episodes).mean(1)

    def teardown(self, stage: str) -> None:
        """Closes the environments of the controller's stage."""
        super().teardown(stage)
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    # ------------------------------------------------------------------ acting
    def _controllers(self, weights: Tensor) -> Controllers:
        return Controllers(weights, self.spec.action_dim, self.spec.discrete, self.use_h)

    def _act(self, observation: Tensor, memory: Memory, weights: Tensor) -> tuple[Tensor, Memory]:
        """Returns actions `[N, A]`, or indices `[N]`, and the memory after them."""
        z = self.encode(observation)
        action = self._controllers(weights).act(z, memory.h)
        return action.argmax(-1) if self.spec.discrete else action, self.rnn.step(z, action, memory)

    @torch.no_grad()
    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """Acts with random networks, or at random."""
        count, actions = len(observation), self.spec.action_dim
        if self.collect_policy == "random":
            if self.spec.discrete:
                return torch.randint(actions, (count,), device=self.device)
            return 2.0 * torch.rand(count, actions, device=self.device) - 1.0
        n = sum(parameter.numel() for parameter in self.controller.parameters())
        scale = 0.01 * torch.rand(count, 1, device=self.device)
        drawn = scale * torch.empty(count, n, device=self.device).cauchy_()
        fresh = torch.cat([drawn, drawn.new_zeros(count, 2 * self.hidden)], -1)
        state = fresh if self.acting.state is None else torch.where(is_init, fresh, self.acting.state.to(fresh))
        weights, h, c = state.split([n, self.hidden, self.hidden], -1)
        action, memory = self._act(observation, Memory(h, c), weights)
        self.acting.state = torch.cat([weights, *memory], -1)
        return action

    def lose_track(self) -> None:
        """Draws other networks for the running episodes."""
        self.acting.state = None

    def act(self, observation: Tensor) -> Tensor:
        """The action at the first observations of episodes."""
        return self.eval_policy()(observation, torch.ones(len(observation), 1, dtype=torch.bool))

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the policy of the search's mean; codes are drawn, as at training."""
        memories: list[Memory] = []

        @torch.no_grad()
        def play(observation: Tensor, is_init: Tensor) -> Tensor:
            memory = memories.pop() if memories else self.rnn.start(len(observation))
            stays = (~is_init).to(memory.h)
            parts = [parameter.reshape(-1) for parameter in self.controller.parameters()]
            weights = torch.cat(parts).expand(len(observation), -1)
            action, memory = self._act(observation, Memory(memory.h * stays, memory.c * stays), weights)
            memories.append(memory)
            return action

        return play

    # ------------------------------------------------------------------ to look at
    @torch.no_grad()
    def reconstruct(self, sequence: TensorDictBase, context: int) -> dict[str, Tensor]:
        """Images uint8 `[B, T, C, 64, 64]` for `lit_mbrl.callbacks.OpenLoopPredictions`: see `LatentAgent.reconstruct`.

        The dream sees `context` images, and from there on draws codes given the real actions.
        """
        mean, _ = self.vae.encode(sequence["observation"])
        action, codes = sequence["action"], [mean[:, :context]]
        memory: Memory = self.rnn(mean[:, : context - 1], action[:, 1:context])[1]
        z = mean[:, context - 1]
        for t in range(context, action.shape[1]):
            memory = self.rnn.step(z, action[:, t], memory)
            z = self.rnn.predict(memory.h).sample(torch.rand_like(z), torch.randn_like(z), self.temperature)
            codes.append(z.unsqueeze(1))
        shown = {"reconstruction": mean, "imagined": torch.cat(codes, 1)}
        return {name: to_uint8(self.vae.decode(code) - 0.5) for name, code in shown.items()}
