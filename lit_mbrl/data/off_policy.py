"""Off-policy data: warm-up, collection, replay and batches, with an exact update-to-data ratio.

    environment -> TorchRL collector -> replay -> one batch per training step -> the algorithm

Iterating the training loader collects `frames_per_batch` frames whenever the update-to-data ratio allows no further
training step, and yields one batch per training step. After `n` environment steps exactly `floor(utd_ratio * (n -
learning_starts))` training steps have been due. `env_steps` and `train_steps` say where a run is, and a checkpoint goes
on from there.

On several devices each rank has its own environments, replay and random numbers. `env_steps` counts the frames of all
ranks, so they agree on every clock and take the same training steps; a batch is shared out among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torchrl.data import ReplayBuffer
from torchrl.data.replay_buffers import Sampler

from lit_mbrl.data.agent import Agent, Batch, Experience
from lit_mbrl.data.base import EnvDataModule
from lit_mbrl.data.buffers.disk import COPIES, frames_in_files
from lit_mbrl.data.buffers.episodes import EpisodeReplay
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.data.buffers.foreign import ForeignReplay
from lit_mbrl.data.buffers.imagined import ModelBuffer, SegmentedBuffer, bytes_per_row
from lit_mbrl.data.buffers.priorities import ReplayPriorities
from lit_mbrl.data.buffers.relabelling import GoalRule, Hindsight, HindsightReplay
from lit_mbrl.data.buffers.spec import BufferSpec
from lit_mbrl.data.buffers.transitions import Replay, Storage, check_memory, predicted_bytes
from lit_mbrl.data.schedule import UpdateSchedule
from lit_mbrl.utils import class_path, distributed
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.hooks import WarmupListener
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import PositiveFloat, PositiveInt


@options
class OffPolicy(EnvDataModule):
    """Collects with the current policy into a replay and serves batches from it."""

    serves: ClassVar[Experience] = "transitions"
    stored: ClassVar[str] = "transitions"  # what `capacity` counts
    # Not the option's own default: where a config names a subclass later, this class's defaults stay.
    default_storage: ClassVar[Storage] = "memory"
    # Options that a resumed run cannot change: the first is over, and the replay is full of the last one's steps.
    fixed_on_resume: ClassVar[tuple[str, ...]] = (
        "learning_starts",
        "sampler",
        "buffer",
        *EnvDataModule.fixed_on_resume,
    )

    learning_starts: PositiveInt = 1_000
    """Environment steps with uniformly random actions before the first training step."""
    frames_per_batch: PositiveInt = 1
    """Environment steps that each device collects at a time; a multiple of `env.num_envs`."""
    utd_ratio: PositiveFloat = 1.0
    """Training steps per environment step after the warm-up."""
    train_steps_per_collection: PositiveInt | None = None
    """Training steps after the warm-up and after every `frames_per_batch` environment steps from there on, in the place
    of `utd_ratio`; null: `utd_ratio` counts."""
    batch_size: PositiveInt = 256
    """Transitions per training step, of all devices together."""
    sequence_batch_size: PositiveInt | None = None
    """Sequences per model update, of all devices together; null: `batch_size`."""
    capacity: PositiveInt = 1_000_000
    """Transitions kept, by each device."""
    storage: Storage | None = None
    """`"memory"`, or `"memmap"` for a replay on disk; null: in memory."""
    sampler: str | dict[str, Any] | None = None
    """TorchRL's sampler of the replay's transitions: a path (`torchrl.data.SamplerWithoutReplacement`), or
    `{class_path: ..., init_args: {...}}`; null: uniformly, with replacement."""
    buffer: str | dict[str, Any] | None = None
    """TorchRL's replay buffer in the place of the replay, described alike, its storage and its sampler, too; it gives
    single transitions. Null: the replay, which gives sequences as well."""
    hindsight: Hindsight | None = None
    """Relabel goals when batches are drawn (`Hindsight`), for tasks with goals; null: do not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        env, starts = self.env, self.learning_starts
        more = f"more than data.learning_starts={starts}"
        require(self.total_frames > starts, "data.total_frames", self.total_frames, more)
        multiple = f"a positive multiple of data.env.num_envs={env.num_envs}"
        frames = self.frames_per_batch
        require(frames % env.num_envs == 0, "data.frames_per_batch", frames, multiple)
        one = "at least one transition per environment"
        require(self.capacity >= env.num_envs, "data.capacity", self.capacity, one)
        for option, envs in (("env.num_envs", env.num_envs), ("eval_episodes", self.eval_episodes)):
            multiple = f"a multiple of the number of tasks, {len(env.tasks)}"
            require(envs % len(env.tasks) == 0, f"data.{option}", envs, multiple)
        ratio, at_first, steps = Fraction(str(self.utd_ratio)), 0, self.train_steps_per_collection
        if steps is not None:
            one = "1 where data.train_steps_per_collection is given"
            require(ratio == 1, "data.utd_ratio", self.utd_ratio, one)
            multiple = f"a multiple of data.frames_per_batch={frames} with data.train_steps_per_collection"
            require(starts % frames == 0, "data.learning_starts", starts, multiple)
            ratio, at_first = Fraction(steps, frames), steps
        self.utd_ratio = ratio
        self.update_schedule = UpdateSchedule(self.total_frames, self.epoch_frames, starts, ratio, at_first)
        self.sequence_batch_size = self.sequence_batch_size or self.batch_size
        self.capacity = min(self.capacity, self.total_frames + frames)
        self.storage = self.storage or self.default_storage
        self.replay: Any = None  # what `make_replay` returned
        self._files: ReplayFiles | None = None
        self._warmup_listeners: list[WarmupListener] = []

    # ------------------------------------------------------------------ set-up
    def check_algorithm(self, agent: Agent) -> None:
        """See `EnvDataModule.check_algorithm`; somebody else's sampler or buffer gives single transitions only."""
        super().check_algorithm(agent)
        name = type(agent).__name__
        if self.buffer is not None:
            beside = ", ".join(self.buffer_specs)
            own = f"null for {name}, whose {beside} needs the replay's own frames"
            require(not self.buffer_specs, "data.buffer", self.buffer, own)
            alone = "null beside data.buffer, which has its own"
            require(self.sampler is None, "data.sampler", self.sampler, alone)
            require(self.storage == "memory", "data.storage", self.storage, alone)
        if self.hindsight is not None:
            alone = "null beside data.hindsight, which is a part of the replay"
            require(self.buffer is None, "data.buffer", self.buffer, alone)
            own = f"null for {name}, which learns from more than single transitions of the replay"
            require(agent.takes_relabelled and not self.buffer_specs, "data.hindsight", self.hindsight, own)
            GoalRule(self.env, self.spec)  # an environment without goals is told here
        if self.buffer is not None or self.sampler is not None:
            self.make_replay(Path())  # a wrong path or argument is told here

    def check_sampling(self, agent: Agent) -> None:
        """See `EnvDataModule.check_sampling`."""
        for option, given in (("data.sampler", self.sampler), ("data.buffer", self.buffer)):
            sequences = f"null for {type(agent).__name__}, which reads sequences: this gives single transitions"
            require(given is None or not agent.sampling().sequence_batches, option, given, sequences)
        one = f"null for {type(agent).__name__}, which reads sequences: goals are relabelled in single transitions"
        reads = bool(agent.sampling().sequence_batches)
        require(self.hindsight is None or not reads, "data.hindsight", self.hindsight, one)

    def check(self, directory: str = ".") -> None:
        """Raises `OptionError` for an environment that cannot be made, or a replay or buffers too large. Cheap."""
        replay = 0 if self.buffer is not None else self.capacity * self.frame_bytes
        check_memory(replay, self.storage, directory)
        for spec in self.buffer_specs.values():
            check_memory(spec.nbytes, "memory", directory, spec.option)
        if buffers := self._buffer_bytes():
            check_memory(buffers + (replay if self.storage == "memory" else 0), "memory", directory)

    def _buffer_bytes(self) -> int:
        return sum(spec.nbytes for spec in self.buffer_specs.values())

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame in the replay."""
        return predicted_bytes(1, self.spec.observation_dim, self.spec.action_dim)

    def make_replay(self, folder: Path) -> Replay | EpisodeReplay | ForeignReplay:
        """An empty replay, whose files would lie in `folder`."""
        if self.buffer is not None:
            return ForeignReplay(class_path.make("data.buffer", self.buffer, ReplayBuffer))
        sampler = None if self.sampler is None else class_path.make("data.sampler", self.sampler, Sampler)
        arguments = self.capacity, self.env.num_envs, self.storage, folder, sampler
        if self.hindsight is not None:
            return HindsightReplay(self.hindsight, GoalRule(self.env, self.spec), *arguments)
        return Replay(*arguments)

    def split_across_ranks(self, world_size: int) -> None:
        """Fits the options to the number of devices: a batch has to be a whole number of transitions on each."""
        for option, size in (("batch_size", self.batch_size), ("sequence_batch_size", self.sequence_batch_size)):
            require(
                size % world_size == 0,
                f"data.{option}",
                size,
                f"a multiple of the number of devices (trainer.devices), {world_size}, which share it",
            )
        self.capacity = min(self.capacity, self.total_frames // world_size + self.frames_per_batch)

    def disk_bytes(self, every_epochs: int | None, world_size: int) -> dict[str, int]:
        """Bytes that a run has on the disk at most, by what they are for.

        Args:
            every_epochs: epochs between checkpoints; None: there are none.
            world_size: number of devices.
        """
        share, per_frame = self.total_frames // world_size, self.frame_bytes
        needed = {"data.storage=memmap": world_size * self.capacity * per_frame if self.storage == "memmap" else 0}
        if every_epochs is not None:
            between = every_epochs * self.epoch_frames // world_size
            needed["the replay's files"] = frames_in_files(self.capacity, share, between) * per_frame
            # The other devices' replays are in the checkpoint itself.
            needed["checkpoints"] = COPIES * (world_size - 1) * min(self.capacity, share) * per_frame
            if buffers := self._buffer_bytes():
                needed["the model's data"] = COPIES * buffers  # whole in each of them
        return needed

    def add_buffer(
        self, name: str, capacity: int, option: str, most: int | None = None, segment_size: int | None = None
    ) -> None:
        """Asks for a buffer of imagined transitions, `buffers[name]` once collection begins.

        Args:
            capacity: transitions kept.
            option: what to lower if it does not fit into memory.
            most: transitions that it is ever resized to; None: `capacity`.
            segment_size: transitions of each segment, if it consists of segments, whose rows have a weight each.
        """
        sizes, weighted = (self.spec.observation_dim, self.spec.action_dim), segment_size is not None
        most = capacity if most is None else most

        def make(device: torch.device) -> ModelBuffer:
            if segment_size is not None:
                return SegmentedBuffer(capacity // segment_size, segment_size, *sizes, device)
            return ModelBuffer(capacity, *sizes, device)

        self.buffer_specs[name] = BufferSpec(
            make, most * bytes_per_row(*sizes, weighted), f"{most:,} transitions", option
        )

    def add_priorities(self, name: str) -> None:
        """Asks for priorities of the replay's frames, `buffers[name]` once collection begins."""
        self.buffer_specs[name] = BufferSpec(lambda device: ReplayPriorities(self.replay))

    def allocate(self) -> None:
        """Makes the replay."""
        size = self.capacity * self.frame_bytes
        self.replay = self.make_replay(Path(self.trainer.default_root_dir) / "replay")
        if self.buffer is None:
            rank_zero_info(f"replay: {self.capacity:,} {self.stored}, {size / 1e6:,.1f} MB in {self.storage} when full")
        self._warmup_listeners = [each for each in self.trainer.callbacks if isinstance(each, WarmupListener)]

    # ------------------------------------------------------------------ training batches
    def collect(self) -> None:
        """Takes `frames_per_batch` environment steps (per rank), random ones during the warm-up, and stores them."""
        start = self.env_steps
        if not self.collector.begun:
            self.prepare_collection()
        frames = self.collect_transitions()
        self.replay.extend(frames)
        if start < self.learning_starts:
            # There is no Lightning batch during the warm-up, and so no other sign of life.
            for callback in self._warmup_listeners:
                callback.on_warmup(self.trainer, self.agent)
        over = self.env_steps > self.learning_starts
        self.schedule.clock = max(start - self.learning_starts, 0) if over else None
        self.agent.after_collect(self, frames)

    def prepare_collection(self) -> None:
        """Lets the algorithm do what comes before environment steps."""
        since = self.env_steps - self.learning_starts
        self.schedule.clock = since if since >= 0 else None
        self.agent.before_collect(self)
        self._policy.random = since < 0

    @property
    def collects_next(self) -> bool:
        """Returns whether the running training step is the last one before environment steps are taken."""
        return self.train_steps >= self.update_schedule.train_steps_due(self.env_steps)

    def truncate_episodes(self, envs: Iterable[int]) -> None:
        """See `EnvDataModule.truncate_episodes`; the replay's sequences must not cross it."""
        super().truncate_episodes(envs)
        self.replay.truncate_running_episodes(envs)

    def sample(self) -> Batch:
        """This rank's share of a training step's batches, if the algorithm asks for nothing else.

        `"transitions"` `[B]` and, if asked for, `"sequences"` `[repeat, B, T]`.
        """
        world_size = distributed.world_size()
        batch = {"transitions": self.replay.sample_transitions(self.batch_size // world_size)}
        wanted = self.agent.sampling()
        if wanted.sequence_batches:
            size = self.sequence_batch_size // world_size
            try:
                sequences = self.replay.sample_sequences(wanted.sequence_batches * size, wanted.sequence_length)
            except OptionError as error:
                raise OptionError(wanted.option, error.value, error.expected) from error
            batch["sequences"] = sequences.view(wanted.sequence_batches, size, -1)
        return batch

    # ------------------------------------------------------------------ checkpoint
    def save_replay_in(self, folder: Path) -> None:
        """From now on checkpoints name files in `folder`, which has to be called `replay` and lie beside them."""
        self._files = ReplayFiles(folder)

    def prune_replay(self) -> None:
        """Removes the files that no checkpoint needs any more."""
        if self._files is not None:
            self._files.prune()

    def _own_state(self) -> dict[str, Any]:
        state = super()._own_state()
        if self.collector is not None:
            save_files = self._files is not None and self.trainer.is_global_zero and self.buffer is None
            state["replay"] = self._files.save(self.replay) if save_files else self.replay.state_dict()
            if self.sampler is not None:
                state["sampler"] = self.replay.buffer.sampler.state_dict()
        return state

    def load_data(self, own: dict[str, Any]) -> None:
        """The replay, from the checkpoint or from the files beside it."""
        if "files" in own["replay"]:
            source = ReplayFiles(Path(self.trainer.ckpt_path).parent / "replay")
            goes_on = self._files is not None and self._files.folder.resolve() == source.folder.resolve()
            (self._files if goes_on else source).load(self.replay, own["replay"])
        else:
            self.replay.load_state_dict(own["replay"])
        if self.sampler is not None:
            self.replay.buffer.sampler.load_state_dict(own["sampler"])
