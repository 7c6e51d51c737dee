"""Off-policy data: warm-up, collection, replay and batches, with an exact update-to-data ratio.

    environment -> TorchRL collector -> replay -> one batch per round of updates -> the algorithm

Iterating the training loader collects `frames_per_batch` frames whenever the update-to-data ratio allows no further
round, and yields one batch per round. After `n` environment steps exactly `floor(utd_ratio * (n - learning_starts))`
rounds have been due. `env_steps` and `rounds` say where a run is, and a checkpoint goes on from there.

On several devices each rank has its own environments, replay and random numbers. `env_steps` counts the frames of all
ranks, so they agree on every clock and take the same rounds; a batch is shared out among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDictBase
from torch import nn

from lit_mbrl import ranks
from lit_mbrl.data.clock import Clock
from lit_mbrl.data.collector import FrameCollector
from lit_mbrl.data.disk import COPIES, frames_in_files
from lit_mbrl.data.episode_replay import EpisodeReplay
from lit_mbrl.data.episodes import EpisodeMeter
from lit_mbrl.data.evaluated import Evaluated
from lit_mbrl.data.loaders import Evaluation, ExploringPolicy, Rounds
from lit_mbrl.data.random_state import get_random_state, set_random_state
from lit_mbrl.data.replay import Replay, Storage, predicted_bytes, require_room
from lit_mbrl.data.replay_files import ReplayFiles
from lit_mbrl.data.round_loop import use_round_loop
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv, describe
from lit_mbrl.errors import require


class OffPolicy(Evaluated, LightningDataModule):
    """Collects with the current policy into a replay and serves batches from it.

    Args:
        env: which environment, and how many side by side (`envs.EnvConfig`), on each device.
        total_frames: environment steps of the whole run, warm-up included, of all devices together.
        epoch_frames: environment steps between evaluations.
        learning_starts: environment steps with uniformly random actions before the first round of updates.
        frames_per_batch: environment steps that each device collects at a time; a multiple of `env.num_envs`.
        utd_ratio: rounds of updates per environment step after the warm-up.
        batch_size: transitions per round, of all devices together.
        sequence_batch_size: sequences per model update, of all devices together; None: `batch_size`.
        capacity: transitions kept, by each device.
        storage: `"memory"`, or `"memmap"` for a replay on disk; None: in memory.
        eval_episodes: deterministic episodes per evaluation.
    """

    stored: ClassVar[str] = "transitions"  # what `capacity` counts
    # Not the option's own default: where a config names a subclass later, this class's defaults stay.
    default_storage: ClassVar[Storage] = "memory"
    # Options that a resumed run cannot change: the first is over, and the replay is full of the second.
    only_at_start: ClassVar[tuple[str, ...]] = ("learning_starts", "env")

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
    ) -> None:
        super().__init__()
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
        for option, copies in (("env.num_envs", env.num_envs), ("eval_episodes", eval_episodes)):
            multiple = f"a multiple of the number of tasks, {len(env.tasks)}"
            require(copies % len(env.tasks) == 0, f"data.{option}", copies, multiple)
        self.env = env
        self.total_frames = total_frames
        self.epoch_frames = epoch_frames
        self.learning_starts = learning_starts
        self.frames_per_batch = frames_per_batch
        self.utd_ratio = Fraction(str(utd_ratio))
        self.batch_size = batch_size
        self.sequence_batch_size = sequence_batch_size or batch_size
        self.capacity = min(capacity, total_frames + frames_per_batch)
        self.storage: Storage = storage or self.default_storage
        self.eval_episodes = eval_episodes

        self.clock = Clock(total_frames, epoch_frames, learning_starts, self.utd_ratio)
        self.replay: Any = None  # what `make_replay` returned
        self.collector: FrameCollector | None = None
        self.meter = EpisodeMeter(env.num_envs)
        self._spec: Spec | None = None
        self._policy: ExploringPolicy | None = None
        self._eval_env: VectorEnv | None = None
        self._resume: dict[str, Any] | None = None
        self._max_epochs: int | None = None
        self._files: ReplayFiles | None = None

    # ------------------------------------------------------------------ set-up
    @property
    def spec(self) -> Spec:
        """Sizes and kind of the environment's observations and actions."""
        if self._spec is None:
            self._spec = describe(self.env)
        return self._spec

    def check(self, directory: str = ".") -> None:
        """Raises `UserError` for an environment that cannot be made or a replay that cannot fit. Cheap."""
        require_room(self.capacity * self.frame_bytes, self.storage, directory)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame in the replay."""
        return predicted_bytes(1, self.spec.observation_dim, self.spec.action_dim)

    def make_replay(self, folder: Path) -> Replay | EpisodeReplay:
        """An empty replay, whose files would lie in `folder`."""
        return Replay(self.capacity, self.env.num_envs, self.storage, folder)

    def check_algorithm(self, algorithm: Any) -> None:
        """Raises `UserError` if the data module asks for more than such an algorithm gives."""

    def share(self, world_size: int) -> None:
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
        return needed

    def setup(self, stage: str) -> None:
        """Checks the options against the environment and, for training, makes room for the replay."""
        self.share(ranks.world_size())
        self.check()
        if stage != "fit":
            return
        size = self.capacity * self.frame_bytes
        rank_zero_info(f"replay: {self.capacity:,} {self.stored}, {size / 1e6:,.1f} MB in {self.storage} when full")
        self.replay = self.make_replay(Path(self.trainer.default_root_dir) / "replay")
        use_round_loop(self.trainer)
        self._max_epochs = self.trainer.fit_loop.max_epochs
        self._limit_epochs()
        # Epochs differ in length (the first holds the warm-up, the last is cut), so each asks for a loader of its own.
        self.trainer.reload_dataloaders_every_n_epochs = 1

    def _limit_epochs(self) -> None:
        epochs, limit = self.clock.epochs(), self._max_epochs
        self.trainer.fit_loop.max_epochs = epochs if limit is None or limit < 0 else min(limit, epochs)

    def teardown(self, stage: str) -> None:
        """Closes the environments."""
        if self.collector is not None:
            self.collector.shutdown()
            self.collector = None
        if self._eval_env is not None:
            self._eval_env.close()
            self._eval_env = None

    # ------------------------------------------------------------------ the clock
    @property
    def env_steps(self) -> int:
        """Environment steps so far, warm-up included, of all devices together."""
        return self.clock.env_steps

    @env_steps.setter
    def env_steps(self, env_steps: int) -> None:
        self.clock.env_steps = env_steps

    @property
    def rounds(self) -> int:
        """Rounds of updates so far, the running one included."""
        return self.clock.rounds

    @rounds.setter
    def rounds(self, rounds: int) -> None:
        self.clock.rounds = rounds

    def rounds_due(self, env_steps: int) -> int:
        """Rounds of updates that are due after so many environment steps."""
        return self.clock.rounds_due(env_steps)

    # ------------------------------------------------------------------ training batches
    def train_dataloader(self) -> Rounds:
        """The rest of the running epoch, one batch per round."""
        return Rounds(self, self.clock.epoch_end())

    def iterate_rounds(self, end: int) -> Iterator[dict[str, TensorDictBase]]:
        """Collects and yields until `end` rounds have been served since the start of the run."""
        if self.collector is None:
            self._start_collector()
        while self.rounds < end:
            while self.rounds_due(self.env_steps) <= self.rounds:
                self.collect()
            self.rounds += 1
            batch = self.sample()
            self.meanwhile()
            yield batch

    def meanwhile(self) -> None:
        """Starts what shall go on beside the updates of a round; nothing here."""

    def collect(self) -> None:
        """Takes `frames_per_batch` environment steps (per rank), random ones during the warm-up, and stores them."""
        warming_up = self.env_steps < self.learning_starts
        self._policy.random = warming_up
        frames = self.collector.rollout()
        for step, copy, observation in self.collector.env.pop_cuts():
            frames["observation"][copy, step] = observation
            self._cut_episode(frames, step, copy)
        self.env_steps += frames.numel() * ranks.world_size()
        self.trainer.lightning_module.observe(frames)
        self.replay.extend(frames)
        self.meter.add(frames)
        if warming_up:
            # There is no Lightning batch during the warm-up, and so no other sign of life.
            for callback in self.trainer.callbacks:
                if hasattr(callback, "on_warmup"):
                    callback.on_warmup(self.trainer, self.trainer.lightning_module)

    def _cut_episode(self, frames: TensorDictBase, step: int, copy: int) -> None:
        """Truncates a copy's episode before a step of these frames `[num_envs, T]`, in which a new one has begun."""
        if step:
            frames["next", "truncated"][copy, step - 1] = True
        else:
            self.replay.truncate_running_episodes([copy])
            self.meter.restart([copy])

    def sample(self) -> dict[str, TensorDictBase]:
        """This rank's share of a round's batches.

        `"transitions"` `[B]` and, if asked for, `"sequences"` `[repeat, B, T]`.
        """
        world_size = ranks.world_size()
        batch = {"transitions": self.replay.sample_transitions(self.batch_size // world_size)}
        wanted = self.trainer.lightning_module.sampling()
        if wanted.sequence_batches:
            size = self.sequence_batch_size // world_size
            sequences = self.replay.sample_sequences(wanted.sequence_batches * size, wanted.sequence_length)
            batch["sequences"] = sequences.view(wanted.sequence_batches, size, -1)
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves batches alone on a CPU, where they are made: a TensorDict's `.to` looks for accelerators each time."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def pop_metrics(self) -> dict[str, float]:
        """Statistics of the training episodes that ended since the last call."""
        return self.meter.pop()

    def _start_collector(self) -> None:
        resume, self._resume = self._resume, None
        ranks.seed_rank()
        env = VectorEnv(self.env, seed=torch.initial_seed() % 2**31)
        self._policy = ExploringPolicy(self.trainer.lightning_module, env)
        self.collector = FrameCollector(env, self._policy, self.frames_per_batch)
        if resume is None:
            return
        if resume["envs"] is None:
            rank_zero_warn(
                f"{self.env.name} cannot restore its state: new episodes start here, so the data that follow differ "
                "from those of an uninterrupted run"
            )
            self.replay.truncate_running_episodes()
            self.meter.restart()
        else:
            env.set_env_state(resume["envs"])
            self.collector.set_carrier(resume["carrier"])
        for name, extra in resume.get("extra", {}).items():
            self.trainer.lightning_module.get_submodule(name).set_extra_state(extra)
        set_random_state(resume["random"])  # last: making environments draws random numbers

    # ------------------------------------------------------------------ evaluation
    def val_dataloader(self) -> Evaluation:
        """One batch of `eval_episodes` deterministic episodes."""
        return Evaluation(self)

    # ------------------------------------------------------------------ checkpoint
    def save_replay_in(self, folder: Path) -> None:
        """From now on checkpoints name files in `folder`, which has to be called `replay` and lie beside them."""
        self._files = ReplayFiles(folder)

    def tidy_replay(self) -> None:
        """Removes the files that no checkpoint needs any more."""
        if self._files is not None:
            self._files.tidy()

    def state_dict(self) -> dict[str, Any]:
        """Counters, replay, statistics of running episodes, environments and every random state.

        On several devices a collective: rank 0, which writes the checkpoint, gets what every rank has.
        """
        clock = self.clock.state_dict()
        if ranks.world_size() == 1:
            return clock | self._own_state()
        return clock | {"ranks": ranks.gather_on_zero(self._own_state() | {"extra": self._extra_states()})}

    def _extra_states(self) -> dict[str, Any]:
        """What the algorithm's modules remember besides weights and buffers, as the noise of running episodes."""
        modules = self.trainer.lightning_module.named_modules()
        return {
            name: module.get_extra_state()
            for name, module in modules
            if type(module).get_extra_state is not nn.Module.get_extra_state
        }

    def _own_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"meter": self.meter.state_dict()}
        if self.collector is not None:
            save_files = self._files is not None and self.trainer.is_global_zero
            state["replay"] = self._files.save(self.replay) if save_files else self.replay.state_dict()
            self.collector.settle()
            state["envs"] = self.collector.env.get_env_state()
            state["carrier"] = self.collector.get_carrier()
            state["random"] = get_random_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores counters and replay now; environments and random states when the collector is made.

        Raises:
            UserError: if training goes on with another number of devices.
        """
        self.clock.load_state_dict(state)
        if self.replay is None:
            return
        own_states = state.get("ranks", [state])
        require(
            len(own_states) == ranks.world_size(),
            "trainer.devices",
            ranks.world_size(),
            f"{len(own_states)} as in the checkpoint, which has a replay and environments for each",
        )
        own = own_states[ranks.rank()]
        self.meter.load_state_dict(own["meter"])
        if "replay" not in own:
            return
        if "files" in own["replay"]:
            source = ReplayFiles(Path(self.trainer.ckpt_path).parent / "replay")
            goes_on = self._files is not None and self._files.folder.resolve() == source.folder.resolve()
            (self._files if goes_on else source).load(self.replay, own["replay"])
        else:
            self.replay.load_state_dict(own["replay"])
        self._resume = {name: own[name] for name in ("envs", "carrier", "random", "extra") if name in own}
        self._limit_epochs()
        done = self.clock.epochs_done()
        progress = self.trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = done
