"""Off-policy data: warm-up, collection, replay and batches, with an exact update-to-data ratio.

    environment -> TorchRL collector -> replay -> one batch per round of updates -> the algorithm

Iterating the training loader collects `frames_per_batch` frames whenever the update-to-data ratio allows no further
round, and yields one batch per round. After `n` environment steps exactly `floor(utd_ratio * (n - learning_starts))`
rounds have been due. `env_steps` and `rounds` say where a run is, and a checkpoint goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.collectors import Collector

from lit_mbrl.data.episodes import EpisodeMeter
from lit_mbrl.data.evaluation import film_episode, make_renderer, run_episodes
from lit_mbrl.data.random_state import get_random_state, set_random_state
from lit_mbrl.data.replay import Replay, predicted_bytes, require_room
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv, describe
from lit_mbrl.errors import require

_EVALUATION_MAX_STEPS = 10_000
_CARRIED = ("observation", "done", "terminated", "truncated", "is_init")
_STORED = (
    "observation",
    "action",
    ("next", "observation"),
    ("next", "reward"),
    ("next", "terminated"),
    ("next", "truncated"),
)


class OffPolicy(LightningDataModule):
    """Collects with the current policy into a replay and serves batches from it.

    Args:
        env: which environment, and how many side by side (`envs.EnvConfig`).
        total_frames: environment steps of the whole run, warm-up included.
        epoch_frames: environment steps between evaluations.
        learning_starts: environment steps with uniformly random actions before the first round of updates.
        frames_per_batch: environment steps collected at a time; a multiple of `env.num_envs`.
        utd_ratio: rounds of updates per environment step after the warm-up.
        batch_size: transitions per round.
        sequence_batch_size: sequences per model update; None: `batch_size`.
        capacity: transitions kept.
        storage: `"memory"`, or `"memmap"` for a replay on disk.
        eval_episodes: deterministic episodes per evaluation.
    """

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
        storage: Literal["memory", "memmap"] = "memory",
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
        self.env = env
        self.total_frames = total_frames
        self.epoch_frames = epoch_frames
        self.learning_starts = learning_starts
        self.frames_per_batch = frames_per_batch
        self.utd_ratio = Fraction(str(utd_ratio))
        self.batch_size = batch_size
        self.sequence_batch_size = sequence_batch_size or batch_size
        self.capacity = min(capacity, total_frames + frames_per_batch)
        self.storage = storage
        self.eval_episodes = eval_episodes

        self.env_steps = 0
        self.rounds = 0
        self.replay: Replay | None = None
        self.collector: Collector | None = None
        self.meter = EpisodeMeter(env.num_envs)
        self._spec: Spec | None = None
        self._policy: _ExploringPolicy | None = None
        self._eval_env: VectorEnv | None = None
        self._resume: dict[str, Any] | None = None

    # ------------------------------------------------------------------ set-up
    @property
    def spec(self) -> Spec:
        """Sizes and kind of the environment's observations and actions."""
        if self._spec is None:
            self._spec = describe(self.env)
        return self._spec

    def check(self, directory: str = ".") -> None:
        """Raises `UserError` for an environment that cannot be made or a replay that cannot fit. Cheap."""
        spec = self.spec
        size = predicted_bytes(self.capacity, spec.observation_dim, spec.action_dim)
        require_room(size, self.storage, directory)

    def setup(self, stage: str) -> None:
        """Checks the options against the environment and, for training, makes room for the replay."""
        self.check()
        if stage != "fit":
            return
        size = predicted_bytes(self.capacity, self.spec.observation_dim, self.spec.action_dim)
        rank_zero_info(f"replay: {self.capacity:,} transitions, {size / 1e6:,.1f} MB in {self.storage} when full")
        self.replay = Replay(self.capacity, self.env.num_envs, self.storage)
        trainer = self.trainer
        limit = trainer.fit_loop.max_epochs
        epochs = self._epochs_after(self.total_frames)
        trainer.fit_loop.max_epochs = epochs if limit is None or limit < 0 else min(limit, epochs)
        # Epochs differ in length (the first holds the warm-up, the last is cut), so each asks for a loader of its own.
        trainer.reload_dataloaders_every_n_epochs = 1

    def teardown(self, stage: str) -> None:
        """Closes the environments."""
        if self.collector is not None:
            self.collector.shutdown()
            self.collector = None
        if self._eval_env is not None:
            self._eval_env.close()
            self._eval_env = None

    # ------------------------------------------------------------------ the clock
    def rounds_due(self, env_steps: int) -> int:
        """Rounds of updates that are due after so many environment steps."""
        return math.floor(self.utd_ratio * max(0, env_steps - self.learning_starts))

    def _epoch_ends(self) -> Iterator[int]:
        """Round counts at which epochs end, an epoch without a round being part of the next one."""
        last = 0
        for boundary in range(self.epoch_frames, self.total_frames + self.epoch_frames, self.epoch_frames):
            end = self.rounds_due(min(boundary, self.total_frames))
            if end > last:
                yield end
                last = end

    def _epochs_after(self, env_steps: int) -> int:
        return sum(1 for end in self._epoch_ends() if end <= self.rounds_due(env_steps))

    def _epochs_done(self) -> int:
        return sum(1 for end in self._epoch_ends() if end <= self.rounds)

    def _epoch_end(self) -> int:
        return next((end for end in self._epoch_ends() if end > self.rounds), self.rounds)

    # ------------------------------------------------------------------ training batches
    def train_dataloader(self) -> _Rounds:
        """The rest of the running epoch, one batch per round."""
        return _Rounds(self, self._epoch_end())

    def iterate_rounds(self, end: int) -> Iterator[dict[str, TensorDictBase]]:
        """Collects and yields until `end` rounds have been served since the start of the run."""
        if self.collector is None:
            self._start_collector()
        while self.rounds < end:
            while self.rounds_due(self.env_steps) <= self.rounds:
                self.collect()
            self.rounds += 1
            yield self.sample()

    def collect(self) -> None:
        """Takes `frames_per_batch` environment steps, random ones during the warm-up, and stores them."""
        warming_up = self.env_steps < self.learning_starts
        self._policy.random = warming_up
        frames = self.collector.rollout().select(*_STORED)
        self.env_steps += frames.numel()
        self.trainer.lightning_module.observe(frames)
        self.replay.extend(frames)
        self.meter.add(frames)
        if warming_up:
            # There is no Lightning batch during the warm-up, and so no other sign of life.
            for callback in self.trainer.callbacks:
                if hasattr(callback, "on_warmup"):
                    callback.on_warmup(self.trainer, self.trainer.lightning_module)

    def sample(self) -> dict[str, TensorDictBase]:
        """One round's batches: `"transitions"` `[B]` and, if asked for, `"sequences"` `[repeat, B, T]`."""
        batch = {"transitions": self.replay.sample_transitions(self.batch_size)}
        wanted = self.trainer.lightning_module.sampling()
        if wanted.sequence_batches:
            count = wanted.sequence_batches * self.sequence_batch_size
            sequences = self.replay.sample_sequences(count, wanted.sequence_length)
            batch["sequences"] = sequences.view(wanted.sequence_batches, self.sequence_batch_size, -1)
        return batch

    def pop_metrics(self) -> dict[str, float]:
        """Statistics of the training episodes that ended since the last call."""
        return self.meter.pop()

    def _start_collector(self) -> None:
        resume, self._resume = self._resume, None
        env = VectorEnv(self.env, seed=torch.initial_seed() % 2**31)
        self._policy = _ExploringPolicy(self.trainer.lightning_module, env)
        self.collector = Collector(
            env,
            self._policy,
            frames_per_batch=self.frames_per_batch,
            total_frames=-1,
            trust_policy=True,
            use_buffers=False,
            track_traj_ids=False,
        )
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
            # The carrier is the collector's next policy input; it has no public setter.
            for key, value in resume["carrier"].items():
                self.collector._carrier[key] = value
        set_random_state(resume["random"])  # last: making environments draws random numbers

    # ------------------------------------------------------------------ evaluation
    def val_dataloader(self) -> _Evaluation:
        """One batch of `eval_episodes` deterministic episodes."""
        return _Evaluation(self)

    def evaluate(self) -> TensorDictBase:
        """Deterministic episodes `[K, T]` of the current policy; leaves every random state as it was.

        The start states depend on the run's seed and on `env_steps` alone, so they differ from one evaluation to the
        next but not between a run and its resumed copy.
        """
        algorithm = self.trainer.lightning_module
        random_state = get_random_state()
        seed = torch.initial_seed() % 2**31
        if self._eval_env is None:
            self._eval_env = VectorEnv(self.env, seed=seed, num_envs=self.eval_episodes)
        self._eval_env.set_seed((seed + 1_000_003 * (1 + self.env_steps)) % 2**31)
        episodes = run_episodes(
            self._eval_env,
            lambda observation: algorithm.act(algorithm.normalize(observation.to(algorithm.device))).cpu(),
            self.spec.max_episode_steps or _EVALUATION_MAX_STEPS,
        )
        set_random_state(random_state)
        return episodes

    def film(self) -> tuple[np.ndarray, int]:
        """Pictures `[T + 1, h, w, 3]` of a deterministic episode, and pictures per second; leaves random states alone.

        Raises:
            RuntimeError: if the environment cannot draw.
        """
        algorithm = self.trainer.lightning_module
        random_state = get_random_state()
        env = make_renderer(self.env)
        try:
            pictures = film_episode(
                env,
                lambda observation: algorithm.act(algorithm.normalize(observation.to(algorithm.device))).cpu(),
                self.spec.max_episode_steps or _EVALUATION_MAX_STEPS,
                seed=(torch.initial_seed() + self.env_steps) % 2**31,
            )
            return pictures, int(env.metadata.get("render_fps", 30))
        finally:
            env.close()
            set_random_state(random_state)

    def check_film(self) -> None:
        """Raises `RuntimeError` if the environment cannot draw."""
        random_state = get_random_state()
        make_renderer(self.env).close()
        set_random_state(random_state)

    # ------------------------------------------------------------------ checkpoint
    def state_dict(self) -> dict[str, Any]:
        """Counters, replay, statistics of running episodes, environments and every random state."""
        state: dict[str, Any] = {"env_steps": self.env_steps, "rounds": self.rounds, "meter": self.meter.state_dict()}
        if self.collector is not None:
            carrier = self.collector._carrier
            state["replay"] = self.replay.state_dict()
            state["envs"] = self.collector.env.get_env_state()
            state["carrier"] = {key: carrier[key].clone() for key in _CARRIED}
            state["random"] = get_random_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores counters and replay now; environments and random states when the collector is made."""
        self.env_steps, self.rounds = state["env_steps"], state["rounds"]
        self.meter.load_state_dict(state["meter"])
        if self.replay is None or "replay" not in state:
            return
        self.replay.load_state_dict(state["replay"])
        self._resume = {name: state[name] for name in ("envs", "carrier", "random")}
        done = self._epochs_done()
        progress = self.trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = done


class _ExploringPolicy(TensorDictModuleBase):
    """The collector's policy: uniformly random during the warm-up, then the algorithm's exploration."""

    def __init__(self, algorithm: Any, env: VectorEnv) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["observation", "is_init"], ["action"]
        self.random = True
        # Hidden from nn.Module: the collector shall neither copy nor move the algorithm.
        object.__setattr__(self, "_algorithm", algorithm)
        object.__setattr__(self, "_env", env)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.random:
            return self._env.rand_action(tensordict)
        algorithm, device = self._algorithm, self._algorithm.device
        observation: Tensor = algorithm.normalize(tensordict["observation"].to(device))
        tensordict["action"] = algorithm.explore(observation, tensordict["is_init"].to(device)).cpu()
        return tensordict


class _Rounds:
    """An epoch's loader. It knows its length: without one Lightning would fetch, and so step, one batch too early."""

    def __init__(self, data: OffPolicy, end: int) -> None:
        self._data, self._end, self._length = data, end, end - data.rounds

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, TensorDictBase]]:
        return self._data.iterate_rounds(self._end)


class _Evaluation:
    """A loader of one batch, the evaluation episodes."""

    def __init__(self, data: OffPolicy) -> None:
        self._data = data

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TensorDictBase]:
        yield self._data.evaluate()
