"""The one update loop that every algorithm shares.

An algorithm says what is its own: its networks (`build`), how it acts (`act`, `explore`), the ordered list of its
updates (`updates`) and one loss method per update. Environments, replay, devices and loggers are elsewhere.

One Lightning batch is one *round*: the whole list of updates, once. So a callback on `on_train_batch_end` runs exactly
once per round. The clocks are `env_steps` and `grad_steps`; Lightning's `global_step` counts optimiser steps of all
updates together and is never used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.models import TerminationRule
from lit_mbrl.networks import RunningNormalizer
from lit_mbrl.training.compiled import CannotCompile, CompiledRound
from lit_mbrl.training.descent import Descent
from lit_mbrl.training.fits import require_data, require_device, require_environment
from lit_mbrl.training.optim import Adam
from lit_mbrl.training.update import Sampling, Update
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import require

Compile = bool | Literal["cudagraphs"]


class Algorithm(Descent):
    """Base of all algorithms; subclasses fill in `build`, `updates`, `act` and their losses.

    Args:
        normalize_observations: keep running statistics of the observations and feed networks `(x - mean) / std`, at
            acting and in every batch with the same numbers (`networks.RunningNormalizer`).
        compile: run the updates of a round as compiled graphs (`training.compiled`); `"cudagraphs"` also replays them
            as CUDA graphs. Where that is impossible a line says why, and the round runs eagerly.
        max_grad_norm: clip the gradient of every update that says nothing else to this global norm; None: do not.
    """

    paper: ClassVar[str] = ""
    continuous_actions: ClassVar[bool] = True
    # Whether observations are images (uint8 [C, H, W]): only vectors (False), only images (True), or both (None).
    pixels: ClassVar[bool | None] = False
    learns_from_sequences: ClassVar[bool] = False  # and from nothing else: `data.Sequences`
    watches: bool = False  # whether metrics are recorded in every round, for `watch`
    # Options that a resumed run cannot change, since their work is done or the weights depend on them.
    only_at_start: ClassVar[tuple[str, ...]] = ("normalize_observations",)

    def __init__(
        self, normalize_observations: bool = False, compile: Compile = False, max_grad_norm: float | None = None
    ) -> None:
        super().__init__()
        require(
            max_grad_norm is None or (math.isfinite(max_grad_norm) and max_grad_norm > 0),
            "model.max_grad_norm",
            max_grad_norm,
            "a finite number > 0, or null",
        )
        self._max_grad_norm = max_grad_norm
        self.normalize_observations = normalize_observations
        self.normalizer: RunningNormalizer | None = None
        self._built = False
        self.spec: Any = None  # the environment's (`envs.Spec`), from before `build` on
        self._terminated: TerminationRule | None = None
        self.update_list: list[Update] = []
        self._compile: Compile = compile
        self._compiled: CompiledRound | None = None
        self._clock_is_read = False
        self._recorded: dict[str, Tensor] = {}
        self._recording = False
        self._last_log: tuple[float, int] | None = None
        self._model_rollouts = 0
        self._seconds_before = 0.0
        self._started: float | None = None

    # ------------------------------------------------------------------ what an algorithm says
    def build(self, observation_dim: int, action_dim: int) -> None:
        """Builds the networks. Called once, when the environment's sizes are known."""
        raise NotImplementedError

    def updates(self) -> Iterator[Update]:
        """The updates of one round, in the order in which they happen."""
        raise NotImplementedError

    def act(self, observation: Tensor) -> Tensor:
        """The deterministic action `[N, A]` for evaluation at (normalised) observations `[N, O]`."""
        raise NotImplementedError

    def player(self) -> Callable[[Tensor, Tensor], Tensor]:
        """What plays an evaluation, with a memory of its own: observations and `is_init` `[K, 1]` to actions."""
        return lambda observation, is_init: self.act(observation)

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """The exploring action `[N, A]`; `is_init` `[N, 1]` marks the first observation of an episode."""
        raise NotImplementedError

    def catch_up(self, replay: Any) -> None:
        """Brings what acting remembers of running episodes up to date, before `explore` acts in them; nothing here.

        Args:
            replay: a `data.buffers.episodes.EpisodeReplay`.
        """

    def lose_track(self) -> None:
        """Forgets what acting remembers, since an episode has begun without `is_init` for `explore`; nothing here."""

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Pairs `(online, target)` for `callbacks.SoftTargetUpdate`; none by default."""
        yield from ()

    def sampling(self) -> Sampling:
        """Which sequences a round needs; none by default."""
        return Sampling()

    def model_rollouts(self, batch_size: int) -> int:
        """How many rollouts in a model the running round imagines from `batch_size` transitions; none by default."""
        return 0

    def watch(self, recorded: dict[str, Tensor]) -> None:
        """Hears of this rank's metrics after every round, if `watches`."""

    def episode_metrics(self, episodes: TensorDictBase) -> dict[str, Tensor]:
        """Further metrics from fresh evaluation episodes `[K, T]` (observations normalised, `"mask"` marks frames)."""
        return {}

    def phase(self) -> Hashable:
        """What losses branch on, apart from their inputs and the options: a compiled round has a graph for each.

        A loss that reads a clock has to be covered here.
        """
        return ()

    # ------------------------------------------------------------------ clocks
    @property
    def env_steps(self) -> int:
        """Environment steps taken so far, warm-up included: the x-axis of everything that is logged."""
        self._note_reading()
        return self.trainer.datamodule.env_steps

    @property
    def grad_steps(self) -> int:
        """Rounds of updates so far, the running one included."""
        self._note_reading()
        return self.trainer.datamodule.rounds

    def _note_reading(self) -> None:
        if not self._clock_is_read:  # `nn.Module.__setattr__` takes as long as a small operation
            self._clock_is_read = True

    @property
    def seconds(self) -> float:
        """Seconds of training so far, evaluations and the parts of a resumed run before this one included."""
        return self._seconds_before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def clocks(self) -> dict[str, float]:
        """What a run is measured by, apart from environment steps."""
        clocks = {"time/rounds": float(self.grad_steps), "time/seconds": self.seconds}
        for update in self.update_list:
            if update.name == "actor":
                clocks["time/policy_updates"] = float(self.grad_steps // update.every * update.repeat)
        if self._model_rollouts:
            clocks["time/model_rollouts"] = float(self._model_rollouts)
        repeat = self.trainer.datamodule.env.frames_per_step
        if repeat > 1:
            clocks["time/frames"] = float(self.env_steps * repeat)
        return clocks

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        """See `require_environment`."""
        require_environment(self, spec)

    def check_device(self, device: torch.device) -> None:
        """See `require_device`."""
        require_device(self, device)

    def check_data(self, data: Any) -> None:
        """See `require_data`."""
        require_data(self, data)

    def configure_model(self) -> None:
        """Builds the networks from the environment's sizes (Lightning calls this once the data module is set up)."""
        if not self._built:
            self.build_for(self.trainer.datamodule.spec)

    def build_for(self, spec: Any) -> None:
        """Builds for an environment, which `build` may read as `self.spec`."""
        self.spec = spec
        self.setup_networks(spec.observation_dim, spec.action_dim, spec.terminated)

    def setup_networks(self, observation_dim: int, action_dim: int, terminated: TerminationRule | None = None) -> None:
        """Builds networks and the ordered list of updates; for use without a trainer, too.

        Args:
            terminated: the task's termination rule on raw observations, where it is known (`envs.Spec.terminated`).
        """
        self._terminated = terminated
        if self.normalize_observations:
            self.normalizer = RunningNormalizer(observation_dim)
        self.build(observation_dim, action_dim)
        for _, target in self.targets():
            target.requires_grad_(False)
        self.update_list = [self._clipped(update) for update in self.updates()]
        self._built = True

    def _clipped(self, update: Update) -> Update:
        if self._max_grad_norm is None or update.max_grad_norm is not None:
            return update
        return replace(update, max_grad_norm=self._max_grad_norm)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One fused Adam per update, in the order of `updates()`."""
        return [Adam(update.parameters(), lr=update.lr, fused=True) for update in self.update_list]

    def on_train_start(self) -> None:
        """Starts the clock of `seconds`, and lets the configured learning rates go before those of a checkpoint."""
        self._started = time.perf_counter()
        self.find_the_way()
        for update, optimizer in zip(self.update_list, self.trainer.optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = update.lr

    def on_fit_start(self) -> None:
        """Forgets what has been compiled in an earlier fit."""
        self._compiled = None

    def termination_rule(self) -> TerminationRule | None:
        """The task's known termination rule on observations as the networks see them; None: there is none."""
        rule, normalizer = self._terminated, self.normalizer
        if rule is None or normalizer is None:
            return rule
        return lambda x, u, following: rule(normalizer.inverse(x), u, normalizer.inverse(following))

    # ------------------------------------------------------------------ one round
    def normalize(self, observation: Tensor) -> Tensor:
        """Observations as the networks see them, `[..., O]`."""
        return observation if self.normalizer is None else self.normalizer(observation)

    def observe(self, frames: TensorDictBase) -> None:
        """Hears of newly collected frames (any batch shape, raw), before they are learned from.

        On several devices the statistics are those of all ranks' frames.
        """
        if self.normalizer is not None:
            self.normalizer.update(distributed.gather_rows(frames["observation"].flatten(0, -2)).to(self.device))

    def prepare_batch(self, batch: TensorDictBase) -> TensorDictBase:
        """Frames with normalised observations, keys as in `data.Replay`; without statistics the batch itself."""
        if self.normalizer is None:
            return batch
        following = batch["next"]
        observation, next_observation = self.normalizer.normalize_all(batch["observation"], following["observation"])
        after = {"observation": next_observation} | {key: following[key] for key in ("reward", "terminated")}
        frames = {"observation": observation, "action": batch["action"], "next": after}
        return TensorDict(frames, batch.batch_size)

    def training_step(self, batch: dict[str, TensorDictBase], batch_idx: int) -> None:
        """Runs one round: every update of `updates()`, in order.

        Args:
            batch: `"transitions"` `[B]`, except for `data.Sequences`, and, where the algorithm asks for them,
                `"sequences"` `[repeat, B, T]`, raw as they are in the replay.
        """
        rounds, logs = self.grad_steps, self.logs_now()
        self._recording = logs or self.watches
        starts = batch["transitions"].numel() if "transitions" in batch else batch["sequences"][0].numel()
        if rollouts := self.model_rollouts(starts):
            self._model_rollouts += rollouts * self.trainer.world_size
        due = [index for index, update in enumerate(self.update_list) if rounds % update.every == 0]
        if not (self._compile and self._take_compiled_steps(batch, due)):
            self._take_steps(batch, due)
        if self.watches:
            self.watch(self._recorded)
        if logs:
            self.log_training()

    def logs_now(self) -> bool:
        """Whether the metrics of the running round are logged."""
        return (every := self.trainer.log_every_n_steps) > 0 and self.grad_steps % every == 0

    def _take_steps(self, batch: dict[str, TensorDictBase], due: list[int]) -> None:
        batches = {name: self.prepare_batch(frames) for name, frames in batch.items()}
        optimizers = self.trainer.strategy._lightning_optimizers  # `self.optimizers()` unpacks a list of one
        for index in due:
            update = self.update_list[index]
            for k in range(update.repeat):
                frames = batches[update.batch][k] if update.batch == "sequences" else batches[update.batch]
                self.record(f"loss/{update.name}", self.descend(update, optimizers[index], frames))

    def _take_compiled_steps(self, batch: dict[str, TensorDictBase], due: list[int]) -> bool:
        """Whether the round could be compiled, and so has been run."""
        try:
            if self._compiled is None:
                self._compiled = self._start_compiling()
            recorded, finite = self._compiled.run(batch, due, self._recording)
        except CannotCompile as reason:
            self._compile = False
            rank_zero_warn(f"model.compile: the rounds run eagerly, since {reason}")
            return False
        names = [self.update_list[index].name for index in due for _ in range(self.update_list[index].repeat)]
        self.count_steps(len(names))
        self.finite.report(names, self.grad_steps, finite)
        self._recorded |= recorded
        return True

    def _start_compiling(self) -> CompiledRound:
        if self.trainer.world_size > 1:
            raise CannotCompile("several devices average their gradients between the passes")
        if self._scaler is not None:
            raise CannotCompile("16-mixed scales its losses between the passes")
        rank_zero_info("model.compile: compiling the updates of a round, up to a minute the first time")
        return CompiledRound(self, self.trainer.optimizers, cuda_graphs=self._compile == "cudagraphs")

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """While the losses are traced for a compiled round: they record, and shall read no clock.

        Raises:
            CannotCompile: if a loss has read a clock that `phase` does not cover.
        """
        recording, recorded, self._recorded = self._recording, self._recorded, {}
        self._recording, self._clock_is_read = True, False
        try:
            yield
        finally:
            self._recording, self._recorded = recording, recorded
        if self._clock_is_read and self.phase() == ():
            raise CannotCompile(f"a loss of {type(self).__name__} reads a clock, which its phase() does not cover")

    def pop_recorded(self) -> dict[str, Tensor]:
        """The metrics recorded since the last call."""
        recorded, self._recorded = self._recorded, {}
        return recorded

    # ------------------------------------------------------------------ metrics
    def record(self, name: str, value: Tensor | float | Callable[[], Tensor]) -> None:
        """Keeps a scalar of this round for the log; does nothing in rounds that are not logged.

        Args:
            value: or a function that computes it, which is called in rounds that are logged.
        """
        if self._recording:
            value = value() if callable(value) else value
            self._recorded[name] = torch.as_tensor(value, dtype=torch.float32).detach()

    def log_training(self) -> None:
        """Sends this round's metrics (means over the ranks) to the loggers, with one device synchronisation."""
        of_round = self.pop_recorded()
        recorded = torch.stack([value.to(self.device) for value in of_round.values()])
        distributed.average_([recorded])
        metrics = dict(zip(of_round, recorded.tolist(), strict=True)) | self.trainer.datamodule.pop_metrics()
        self.finite.settle()
        metrics |= self.finite.metrics()
        now = time.perf_counter()
        if self._last_log is not None:
            then, env_steps = self._last_log
            metrics["time/steps_per_second"] = (self.env_steps - env_steps) / (now - then)
        self._last_log = (now, self.env_steps)
        self.log_metrics(metrics)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Writes metrics to every logger at the current environment step."""
        metrics = metrics | self.clocks()
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.env_steps)

    # ------------------------------------------------------------------ evaluation
    def validation_step(self, episodes: TensorDictBase, batch_idx: int) -> None:
        """Logs return and length of deterministic evaluation episodes `[K, T]` and the algorithm's own metrics.

        The second batch, if there is one, is of the environment as it is in training (`data.env.eval_kwargs`).

        Reads `("next", "reward")` `[K, T, 1]` and `"mask"` `[K, T]` (True for the frames of the episode).
        """
        mask = episodes["mask"]
        returns = (episodes["next", "reward"].squeeze(-1) * mask).sum(-1)
        if batch_idx == 0:
            metrics = {
                "eval/return": returns.mean(),
                "eval/return_std": returns.std(correction=0),
                "eval/episode_length": mask.sum(-1).float().mean(),
            } | self.trainer.datamodule.task_metrics(returns)
            if self.trainer.state.fn == "fit":  # for callbacks that monitor them; their log has them already
                ended = self.trainer.datamodule.pop_monitored()
                self.log_dict(ended, logger=False, batch_size=1, sync_dist=distributed.world_size() > 1)
            prepared = self.prepare_batch(episodes)
            prepared["mask"] = mask
            metrics |= self.episode_metrics(prepared)
        else:
            metrics = {
                "eval/train_levels_return": returns.mean(),
                "eval/train_levels_return_std": returns.std(correction=0),
            }
        # The ranks have the same episodes; that they agree on what is best must not hang on their rounding.
        self.log_dict(metrics, logger=False, batch_size=1, sync_dist=distributed.world_size() > 1)
        if self.trainer.state.fn == "fit":
            self.log_metrics({name: float(value) for name, value in metrics.items()})

    # ------------------------------------------------------------------ checkpoint
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves Lightning's loop counters out: `env_steps` and `rounds` of the data module say where the run is.

        Raises:
            RunFailed: if a step was not finite: what came after it is not saved.
        """
        self.finite.settle()
        checkpoint["skipped"] = dict(self.finite.skipped)
        checkpoint.pop("loops", None)
        checkpoint["clocks"] = {"seconds": self.seconds, "model_rollouts": self._model_rollouts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the clocks and the count of left-out steps back."""
        clocks = checkpoint["clocks"]
        self._seconds_before, self._model_rollouts = clocks["seconds"], clocks["model_rollouts"]
        self.finite.skipped = dict(checkpoint["skipped"])
