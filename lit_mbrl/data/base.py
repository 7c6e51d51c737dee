"""Base of data modules that step an environment with the current policy: schedule, collector, evaluation, resume.

    environment -> TorchRL collector -> [what a data module makes of it] -> one batch per training step

Before and after it collects, and for each batch, a data module asks the algorithm (`data.agent`). What an algorithm
keeps besides the experience are `buffers`, made and checkpointed here.

`env_steps` and `train_steps` say where a run is, and a checkpoint goes on from there. On several devices each rank has
its own environments and random numbers; `env_steps` counts the frames of all ranks, so they agree on every clock and
take the same training steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDictBase
from torch import nn

from lit_mbrl.data.agent import SERVED_BY, Agent, Batch, Experience
from lit_mbrl.data.buffers.spec import BufferSpec
from lit_mbrl.data.collector import FrameCollector
from lit_mbrl.data.evaluated import EvaluationMixin
from lit_mbrl.data.loaders import CollectorPolicy, EvalLoader, TrainLoader
from lit_mbrl.data.schedule import Schedule
from lit_mbrl.data.staged import schedule_of
from lit_mbrl.data.statistics import EpisodeStatistics
from lit_mbrl.envs import EnvConfig, Spec, VectorEnv, describe
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.options import options
from lit_mbrl.utils.random_state import get_random_state, set_random_state
from lit_mbrl.utils.types import PositiveInt


@options
class EnvDataModule(EvaluationMixin, LightningDataModule):
    """Steps environments and serves one batch per training step; a subclass keeps the frames and makes the batches.

    A subclass makes `update_schedule`, which counts environment steps and training steps, and says how many steps are
    collected at a time, `frames_per_batch`.
    """

    section: ClassVar[str] = "data"
    # Options that a resumed run cannot change.
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("env",)
    # Whether the policy may draw continuous actions beyond [-1, 1], of which the environment gets the nearest inside.
    unbounded_actions: ClassVar[bool] = False
    serves: ClassVar[Experience]

    env: EnvConfig = field(kw_only=False)
    """Which environment, and how many side by side (`envs.EnvConfig`), on each device."""
    total_frames: PositiveInt = 1_000_000
    """Environment steps of the whole run, warm-up included, of all devices together."""
    epoch_frames: PositiveInt = 5_000
    """Environment steps between evaluations."""
    eval_episodes: PositiveInt = 10
    """Deterministic episodes per evaluation."""

    def __post_init__(self) -> None:
        self.schedule = Schedule()
        self.buffers: dict[str, Any] = {}
        self.buffer_specs: dict[str, BufferSpec] = {}
        self._saved_buffers: dict[str, Any] = {}
        self.collector: FrameCollector | None = None
        self.episode_statistics = EpisodeStatistics(self.env.num_envs)
        self._spec: Spec | None = None
        self._policy: CollectorPolicy | None = None
        self._eval_envs: dict[bool, VectorEnv] = {}
        self._resume: dict[str, Any] | None = None
        self._max_epochs: int | None = None
        self._training = False
        self._faults = 0  # steps that the running environments have left out

    # ------------------------------------------------------------------ what a data module says
    def allocate(self) -> None:
        """Allocates what training needs. Called once, before a checkpoint is loaded."""

    def collect(self) -> None:
        """Collects frames with `collect_transitions` and makes something of them."""
        raise NotImplementedError

    def truncate_episodes(self, envs: Iterable[int]) -> None:
        """Ends these environments' running episodes, as new ones begin before the next collected frames."""
        envs = list(envs)
        self.episode_statistics.restart(envs)
        self.agent.restart_episodes(envs)

    def load_data(self, own: dict[str, Any]) -> None:
        """Restores what `_own_state` adds to this class's."""

    # ------------------------------------------------------------------ set-up
    @property
    def agent(self) -> Agent:
        """The algorithm that the data are for."""
        return self.trainer.lightning_module

    @property
    def spec(self) -> Spec:
        """Sizes and kind of the environment's observations and actions."""
        if self._spec is None:
            self._spec = describe(self.env)
            if self.env.eval_kwargs is not None:
                seen, expected = describe(self.env.eval_config()), self._spec.observation_shape
                require(
                    (seen.observation_shape, seen.action_dim) == (expected, self._spec.action_dim),
                    "data.env.eval_kwargs",
                    self.env.eval_kwargs,
                    f"observations {list(expected)} and actions as in training, not {list(seen.observation_shape)}",
                )
        return self._spec

    def check(self, directory: str = ".") -> None:
        """Raises `OptionError` for an environment that cannot be made or data that cannot fit. Cheap."""
        _ = self.spec

    def check_algorithm(self, agent: Agent) -> None:
        """Raises `OptionError` if data module and algorithm do not suit each other; notes which buffers are wanted."""
        require(
            agent.learns_from == self.serves,
            "data",
            type(self).__name__,
            f"{SERVED_BY[agent.learns_from]} for {type(agent).__name__}, which learns from {agent.learns_from}",
        )
        agent.check_data(self)
        self.update_schedule = schedule_of(self, agent.stages(self))
        self.buffer_specs = {}
        agent.add_buffers(self)

    def check_sampling(self, agent: Agent) -> None:
        """Raises `OptionError` if an algorithm, built, asks for batches that these data cannot give; they can here."""

    def split_across_ranks(self, world_size: int) -> None:
        """Fits the options to the number of devices."""

    def setup(self, stage: str) -> None:
        """Checks the options against the environment and, for training, makes room for the data."""
        self.check_algorithm(self.agent)
        self.agent.check_devices(distributed.world_size())
        self.split_across_ranks(distributed.world_size())
        self.check()
        if stage != "fit":
            return
        self._training = True
        self.allocate()
        for name, spec in self.buffer_specs.items():
            if spec.text:
                rank_zero_info(f"{name} buffer: {spec.text}, {spec.nbytes / 1e6:,.1f} MB at the most")
        self._max_epochs = self.trainer.fit_loop.max_epochs
        self._limit_epochs()
        # Epochs differ in length, so each asks for a loader of its own.
        self.trainer.reload_dataloaders_every_n_epochs = 1

    def _limit_epochs(self) -> None:
        epochs, limit = self.update_schedule.epochs(), self._max_epochs
        self.trainer.fit_loop.max_epochs = epochs if limit is None or limit < 0 else min(limit, epochs)

    def teardown(self, stage: str) -> None:
        """Closes the environments."""
        if self.collector is not None:
            self.collector.shutdown()
            self.collector = None
        while self._eval_envs:
            self._eval_envs.popitem()[1].close()

    # ------------------------------------------------------------------ the clock
    @property
    def env_steps(self) -> int:
        """Environment steps so far, of all devices together."""
        return self.update_schedule.env_steps

    @env_steps.setter
    def env_steps(self, env_steps: int) -> None:
        self.update_schedule.env_steps = env_steps

    @property
    def train_steps(self) -> int:
        """Training steps so far, the running one included."""
        return self.update_schedule.train_steps

    @train_steps.setter
    def train_steps(self, train_steps: int) -> None:
        self.update_schedule.train_steps = train_steps

    # ------------------------------------------------------------------ training batches
    def train_dataloader(self) -> TrainLoader:
        """The rest of the running epoch, one batch per training step."""
        self.check_sampling(self.agent)
        return TrainLoader(self, self.update_schedule.epoch_end())

    def iterate_train_steps(self, end: int) -> Iterator[Batch]:
        """Collects and yields until `end` training steps have been served since the start of the run."""
        if self.collector is None:
            self._start_collector()
        while self.train_steps < end:
            while self.update_schedule.train_steps_due(self.env_steps) <= self.train_steps:
                self._begin_stage(at_frame=True)
                self.collect()
            self.train_steps += 1
            self._begin_stage(at_frame=False)
            batch = self.agent.sample(self)
            self.start_async_step()
            yield batch

    def _begin_stage(self, at_frame: bool) -> None:
        """Lets the algorithm begin a stage, if one begins with the coming frame or the running training step."""
        if stage := self.update_schedule.begin_stage(at_frame):
            rank_zero_info(f"stage {stage.name}: from environment step {self.env_steps:,}")
            self.agent.start_stage(self, stage.name)

    def start_async_step(self) -> None:
        """Starts a step that goes on beside the updates of a training step; nothing here."""

    def collect_transitions(self) -> TensorDictBase:
        """Takes `frames_per_batch` environment steps (per rank); frames `[num_envs, T]`, valid until the next call."""
        frames = self.collector.rollout()
        envs = self.collector.env
        if envs.faults > self._faults:  # steps that were left out since they were not finite
            self.agent.finite.count_frames(envs.faults - self._faults)
            self._faults = envs.faults
        truncations = envs.pop_truncations()
        if truncations:
            self.agent.lose_track()
        for step, env, observation in truncations:
            frames["observation"][env, step] = observation
            if step:
                frames["next", "truncated"][env, step - 1] = True
            else:
                self.truncate_episodes([env])
        self.env_steps += frames.numel() * distributed.world_size()
        self.episode_statistics.add(frames)
        return frames

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves batches alone on a CPU, where they are made: a TensorDict's `.to` looks for accelerators each time."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def pop_metrics(self) -> dict[str, float]:
        """Statistics of the training episodes that ended since the last call."""
        return self.episode_statistics.pop()

    def pop_monitored(self) -> dict[str, float]:
        """The same of those that ended since the last evaluation, for callbacks."""
        return self.episode_statistics.pop_monitored()

    def _start_collector(self) -> None:
        resume, self._resume = self._resume, None
        # Before the random states are restored, and after the algorithm has come to its device.
        self.buffers = {name: spec.make(self.agent.device) for name, spec in self.buffer_specs.items()}
        saved, self._saved_buffers = self._saved_buffers, {}
        for name, state in saved.items():
            self.buffers[name].load_state_dict(state)
        distributed.seed_rank()
        env = VectorEnv(self.env, seed=torch.initial_seed() % 2**31)
        env.non_finite = "restart" if self.agent.finite.action == "skip" else "stop"
        self._policy = CollectorPolicy(self.trainer.lightning_module, env)
        clip_actions = self.unbounded_actions and not self.spec.discrete
        self.collector = FrameCollector(env, self._policy, self.frames_per_batch, clip_actions)
        if resume is None:
            return
        if resume["envs"] is None:
            rank_zero_warn(
                f"{self.env.name} cannot restore its state: new episodes start here, so the data that follow differ "
                "from those of an uninterrupted run"
            )
            self.truncate_episodes(range(self.env.num_envs))
        else:
            env.set_env_state(resume["envs"])
            self.collector.set_carrier(resume["carrier"])
        for name, extra in resume.get("extra", {}).items():
            self.trainer.lightning_module.get_submodule(name).set_extra_state(extra)
        set_random_state(resume["random"])  # last: making environments draws random numbers

    def make_env(self, num_envs: int) -> VectorEnv:
        """Returns further copies of the environment, for an algorithm that plays by itself; it closes them."""
        return VectorEnv(self.env, seed=0, num_envs=num_envs)

    # ------------------------------------------------------------------ evaluation
    def val_dataloader(self) -> EvalLoader:
        """A batch of `eval_episodes` deterministic episodes, and one in the environment as trained, if that differs."""
        return EvalLoader(self)

    # ------------------------------------------------------------------ checkpoint
    def state_dict(self) -> dict[str, Any]:
        """Counters, statistics of running episodes, environments, every random state, and the subclass's data.

        On several devices a collective: rank 0, which writes the checkpoint, gets what every rank has.
        """
        clock = self.update_schedule.state_dict()
        if distributed.world_size() == 1:
            return clock | self._own_state()
        return clock | {"ranks": distributed.gather_on_zero(self._own_state() | {"extra": self._extra_states()})}

    def _extra_states(self) -> dict[str, Any]:
        """Returns the modules' states besides weights and buffers, as the noise of running episodes."""
        modules = self.trainer.lightning_module.named_modules()
        return {
            name: module.get_extra_state()
            for name, module in modules
            if type(module).get_extra_state is not nn.Module.get_extra_state
        }

    def _own_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"episode_statistics": self.episode_statistics.state_dict()}
        if self.collector is not None:
            self.collector.wait()
            state["envs"] = self.collector.env.get_env_state()
            state["carrier"] = self.collector.get_carrier()
            state["random"] = get_random_state()
            state["schedule"] = self.schedule.state_dict()
            state["buffers"] = {name: buffer.state_dict() for name, buffer in self.buffers.items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores counters and data now; environments and random states when the collector is made.

        Raises:
            OptionError: if training goes on with another number of devices.
        """
        self.update_schedule.load_state_dict(state)
        if not self._training:
            return
        own_states = state.get("ranks", [state])
        require(
            len(own_states) == distributed.world_size(),
            "trainer.devices",
            distributed.world_size(),
            f"{len(own_states)} as in the checkpoint, which has a replay and environments for each",
        )
        own = own_states[distributed.rank()]
        self.episode_statistics.load_state_dict(own["episode_statistics"])
        if "random" not in own:
            return
        self.load_data(own)
        self.schedule.load_state_dict(own["schedule"])
        self._saved_buffers = own["buffers"]
        self._resume = {name: own[name] for name in ("envs", "carrier", "random", "extra") if name in own}
        self._limit_epochs()
        done = self.update_schedule.epochs_done()
        progress = self.trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = done
