"""Sequences for models with a latent state (Dreamer, PlaNet), of images or vectors.

    environment -> collector, whose policy carries a latent state -> episodes -> one batch per training step

Dreamer's schedule is that of `OffPolicy`: `learning_starts` random steps, `pretrain_steps`, and from then on
`utd_ratio * frames_per_batch` training steps after every `frames_per_batch` steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_mbrl.data.agent import Batch, Experience
from lit_mbrl.data.buffers.episodes import EpisodeChoice, EpisodeReplay, ShortEpisodes, frame_bytes
from lit_mbrl.data.buffers.transitions import Storage
from lit_mbrl.data.evaluated import EvalPolicy
from lit_mbrl.data.off_policy import OffPolicy
from lit_mbrl.data.schedule import UpdateSchedule
from lit_mbrl.envs import VectorEnv
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeInt, PositiveInt, Rule


@options
class SequenceReplay(OffPolicy):
    """Collects episodes with a policy that may carry a state, and serves sequences of them.

    Batches have one key, `"sequences"` `[R, B, T]` with the keys of `data.buffers.episodes` and `"mask"`; R is 1 unless
    the algorithm asks for several batches a training step. All counts are of the agent's steps: an environment whose
    actions are repeated takes `data.env.action_repeat` times as many.
    """

    serves: ClassVar[Experience] = "sequences"
    stored: ClassVar[str] = "frames"
    default_storage: ClassVar[Storage] = "memmap"
    fixed_on_resume: ClassVar[tuple[str, ...]] = (*OffPolicy.fixed_on_resume, "pretrain_steps")
    # Images of whole evaluations would take hundreds of megabytes; those of one episode are in `eval_episode`.
    evaluated_keys: ClassVar[Sequence[Any]] = (
        "action",
        ("next", "reward"),
        ("next", "terminated"),
        ("next", "truncated"),
    )

    sampler: ClassVar[None] = None  # not options: sequences are drawn from whole episodes
    buffer: ClassVar[None] = None
    train_steps_per_collection: ClassVar[None] = None
    sequence_length: Annotated[int, Rule("an integer > 1", lambda frames: frames > 1)] = 50
    """T, frames of a sequence."""
    batch_size: PositiveInt = 50
    """B, sequences per training step, of all devices together."""
    capacity: PositiveInt = 1_000_000
    """Frames kept by each device, the first of every episode included."""
    storage: Storage | None = None
    """Storage of observations: `"memmap"`, a file in the run folder, or `"memory"`; null: in the file."""
    episode_choice: EpisodeChoice = "episodes"
    """`"episodes"`: an episode uniformly, then the start uniformly, as Dreamer; `"windows"`: uniform over all
    sequences."""
    short_episodes: ShortEpisodes = "skip"
    """Treatment of episodes with fewer than T frames: `"skip"`, as Dreamer, or `"pad"`: they are served with padding
    that `"mask"` tells."""
    pretrain_steps: NonNegativeInt = 0
    """Training steps right after the warm-up."""
    async_env_steps: bool = False
    """Step, and draw, the environments in their worker processes during the updates of a training step: the policy acts
    before them, with the weights of the training step before. One step of every environment at a time, so
    `frames_per_batch` has to be `env.num_envs`, and `env.workers` true."""

    def __post_init__(self) -> None:
        given, capacity, frames = self.sequence_batch_size, self.capacity, self.frames_per_batch
        require(given is None, "data.sequence_batch_size", given, "null: all batches are of sequences, data.batch_size")
        super().__post_init__()
        envs = self.env.num_envs
        require(
            self.capacity >= max(2 * frames, envs * self.sequence_length),
            "data.capacity",
            capacity,
            "at least two frames per step of data.frames_per_batch, and data.sequence_length per environment",
        )
        require(
            not self.async_env_steps or (self.env.workers and frames == envs),
            "data.async_env_steps",
            self.async_env_steps,
            f"data.env.workers=true and data.frames_per_batch={envs}, which is data.env.num_envs",
        )
        self.update_schedule = UpdateSchedule(
            self.total_frames, self.epoch_frames, self.learning_starts, self.utd_ratio, self.pretrain_steps
        )
        # The first episode of the last evaluation on this process, `[1, T]`, as sequences are.
        self.eval_episode: TensorDictBase | None = None
        self._seen: list[Tensor] = []

    @property
    def frame_bytes(self) -> int:
        """See `OffPolicy.frame_bytes`."""
        return frame_bytes(self.spec)

    def make_replay(self, folder: Path) -> EpisodeReplay:
        """See `OffPolicy.make_replay`; each device has a file of its own."""
        own = folder / str(distributed.rank()) if distributed.world_size() > 1 else folder
        return EpisodeReplay(self.spec, self.capacity, self.env.num_envs, self.storage, own)

    def start_async_step(self) -> None:
        """Begins the next step with `async_env_steps`."""
        assert self.collector is not None  # it brought what the training step is about
        if self.async_env_steps and not self.collector.begun:
            self.prepare_collection()
            self.collector.step_async()

    def sample(self) -> Batch:
        """This rank's share of a training step's sequences, `[R, B, T]`."""
        batches = max(1, self.agent.sampling().sequence_batches)
        size = self.batch_size // distributed.world_size()
        sequences = self.replay.sample(batches * size, self.sequence_length, self.episode_choice, self.short_episodes)
        return {"sequences": sequences.view(batches, size, -1)}

    def run_eval_episodes(self, env: VectorEnv, policy: EvalPolicy | None = None) -> TensorDictBase:
        """See `EvaluationMixin.run_eval_episodes`; observations are kept of the first one alone, in `eval_episode`."""
        self._seen = []
        episodes = super().run_eval_episodes(env, policy)
        length = int(episodes["mask"][0].sum())
        action, reward = episodes["action"][:1, : length - 1], episodes["next", "reward"][:1, : length - 1]
        if self.spec.discrete:
            action = torch.nn.functional.one_hot(action, self.spec.action_dim).float()
        false = torch.zeros(1, length, 1, dtype=torch.bool)
        first = false.clone()
        first[:, 0] = True
        self.eval_episode = TensorDict(
            {
                "observation": torch.stack(self._seen[:length])[None],
                "action": torch.cat([torch.zeros_like(action[:, :1]), action], 1),
                "reward": torch.cat([torch.zeros_like(reward[:, :1]), reward], 1),
                "terminated": false,
                "truncated": false,
                "is_first": first,
                "mask": ~false,
            },
            [1, length],
        )
        self._seen = []
        return episodes

    def on_eval_observation(self, observation: Tensor) -> None:
        """See `EvaluationMixin.on_eval_observation`."""
        self._seen.append(observation[0].clone())
