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

import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info

from lit_mbrl.data.agent import Batch, Experience
from lit_mbrl.data.base import EnvDataModule
from lit_mbrl.data.buffers.disk import COPIES, frames_in_files
from lit_mbrl.data.buffers.episodes import EpisodeReplay
from lit_mbrl.data.buffers.files import ReplayFiles
from lit_mbrl.data.buffers.imagined import ModelBuffer, SegmentedBuffer, bytes_per_row
from lit_mbrl.data.buffers.priorities import ReplayPriorities
from lit_mbrl.data.buffers.spec import BufferSpec
from lit_mbrl.data.buffers.transitions import Replay, Storage, check_memory, predicted_bytes
from lit_mbrl.data.schedule import UpdateSchedule
from lit_mbrl.envs import EnvConfig
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import OptionError, require
from lit_mbrl.utils.hooks import WarmupListener


class OffPolicy(EnvDataModule):
    """Collects with the current policy into a replay and serves batches from it.

    Args:
        env: which environment, and how many side by side (`envs.EnvConfig`), on each device.
        total_frames: environment steps of the whole run, warm-up included, of all devices together.
        epoch_frames: environment steps between evaluations.
        learning_starts: environment steps with uniformly random actions before the first training step.
        frames_per_batch: environment steps that each device collects at a time; a multiple of `env.num_envs`.
        utd_ratio: training steps per environment step after the warm-up.
        train_steps_per_collection: training steps after the warm-up and after every `frames_per_batch` environment
            steps from there on, in the place of `utd_ratio`; None: `utd_ratio` counts.
        batch_size: transitions per training step, of all devices together.
        sequence_batch_size: sequences per model update, of all devices together; None: `batch_size`.
        capacity: transitions kept, by each device.
        storage: `"memory"`, or `"memmap"` for a replay on disk; None: in memory.
        eval_episodes: deterministic episodes per evaluation.
    """

    serves: ClassVar[Experience] = "transitions"
    stored: ClassVar[str] = "transitions"  # what `capacity` counts
    # Not the option's own default: where a config names a subclass later, this class's defaults stay.
    default_storage: ClassVar[Storage] = "memory"
    # Options that a resumed run cannot change: the first is over, and the replay is full of the second.
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("learning_starts", *EnvDataModule.fixed_on_resume)

    def __init__(
        self,
        env: EnvConfig,
        total_frames: int = 1_000_000,
        epoch_frames: int = 5_000,
        learning_starts: int = 1_000,
        frames_per_batch: int = 1,
        utd_ratio: float = 1.0,
        batch_size: int = 256,
        sequence_batch_size: int | None = None,
        capacity: int = 1_000_000,
        storage: Storage | None = None,
        eval_episodes: int = 10,
        train_steps_per_collection: int | None = None,
    ) -> None:
        require(total_frames > 0, "data.total_frames", total_frames, "an integer > 0")
        require(epoch_frames > 0, "data.epoch_frames", epoch_frames, "an integer > 0")
        require(learning_starts > 0, "data.learning_starts", learning_starts, "an integer > 0")
        require(
            total_frames > learning_starts,
            "data.total_frames",
            total_frames,
            f"more than data.learning_starts={learning_starts}",
        )
        require(
            frames_per_batch > 0 and frames_per_batch % env.num_envs == 0,
            "data.frames_per_batch",
            frames_per_batch,
            f"a positive multiple of data.env.num_envs={env.num_envs}",
        )
        require(math.isfinite(utd_ratio) and utd_ratio > 0, "data.utd_ratio", utd_ratio, "a finite number > 0")
        require(batch_size > 0, "data.batch_size", batch_size, "an integer > 0")
        require(
            sequence_batch_size is None or sequence_batch_size > 0,
            "data.sequence_batch_size",
            sequence_batch_size,
            "an integer > 0, or null for data.batch_size",
        )
        require(capacity >= env.num_envs, "data.capacity", capacity, "at least one transition per environment")
        require(eval_episodes > 0, "data.eval_episodes", eval_episodes, "an integer > 0")
        for option, envs in (("env.num_envs", env.num_envs), ("eval_episodes", eval_episodes)):
            multiple = f"a multiple of the number of tasks, {len(env.tasks)}"
            require(envs % len(env.tasks) == 0, f"data.{option}", envs, multiple)
        require(
            train_steps_per_collection is None or train_steps_per_collection > 0,
            "data.train_steps_per_collection",
            train_steps_per_collection,
            "an integer > 0, or null for data.utd_ratio",
        )
        ratio, at_first = Fraction(str(utd_ratio)), 0
        if train_steps_per_collection is not None:
            require(utd_ratio == 1.0, "data.utd_ratio", utd_ratio, "1 where data.train_steps_per_collection is given")
            collections = f"a multiple of data.frames_per_batch={frames_per_batch} with data.train_steps_per_collection"
            require(learning_starts % frames_per_batch == 0, "data.learning_starts", learning_starts, collections)
            ratio, at_first = Fraction(train_steps_per_collection, frames_per_batch), train_steps_per_collection
        update_schedule = UpdateSchedule(total_frames, epoch_frames, learning_starts, ratio, at_first)
        super().__init__(env, total_frames, epoch_frames, frames_per_batch, eval_episodes, update_schedule)
        self.learning_starts = learning_starts
        self.utd_ratio, self.train_steps_per_collection = ratio, train_steps_per_collection
        self.batch_size = batch_size
        self.sequence_batch_size = sequence_batch_size or batch_size
        self.capacity = min(capacity, total_frames + frames_per_batch)
        self.storage: Storage = storage or self.default_storage
        self.replay: Any = None  # what `make_replay` returned
        self._files: ReplayFiles | None = None
        self._warmup_listeners: list[WarmupListener] = []

    # ------------------------------------------------------------------ set-up
    def check(self, directory: str = ".") -> None:
        """Raises `OptionError` for an environment that cannot be made, or a replay or buffers too large. Cheap."""
        replay = self.capacity * self.frame_bytes
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

    def make_replay(self, folder: Path) -> Replay | EpisodeReplay:
        """An empty replay, whose files would lie in `folder`."""
        return Replay(self.capacity, self.env.num_envs, self.storage, folder)

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
        rank_zero_info(f"replay: {self.capacity:,} {self.stored}, {size / 1e6:,.1f} MB in {self.storage} when full")
        self.replay = self.make_replay(Path(self.trainer.default_root_dir) / "replay")
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
        return self.train_steps >= self.train_steps_due(self.env_steps)

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
            save_files = self._files is not None and self.trainer.is_global_zero
            state["replay"] = self._files.save(self.replay) if save_files else self.replay.state_dict()
        return state

    def load_data(self, own: dict[str, Any]) -> None:
        """The replay, from the checkpoint or from the files beside it."""
        if "files" in own["replay"]:
            source = ReplayFiles(Path(self.trainer.ckpt_path).parent / "replay")
            goes_on = self._files is not None and self._files.folder.resolve() == source.folder.resolve()
            (self._files if goes_on else source).load(self.replay, own["replay"])
        else:
            self.replay.load_state_dict(own["replay"])
