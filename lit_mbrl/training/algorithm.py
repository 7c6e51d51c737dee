"""The one update loop that every algorithm shares.

An algorithm says what is its own: its networks (`build`), how it acts (`act`, `explore`), the ordered list of its
updates (`updates`) and one loss method per update. Environments, replay, devices and loggers are elsewhere.

One Lightning batch is one *training step*: the whole list of updates, once. So a callback on `on_train_batch_end` runs
exactly once per training step. The clocks are `env_steps` and `train_steps`; Lightning's `global_step` counts optimiser
steps of all updates together and is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from lit_mbrl.models import TerminationRule
from lit_mbrl.networks import RunningNormalizer
from lit_mbrl.training.checks import check_environment, check_precision, check_targets, spec_of_run
from lit_mbrl.training.compiled import CompiledTrainStep, CompileError
from lit_mbrl.training.fast_path import count_steps
from lit_mbrl.training.gradient_step import ManualOptimization
from lit_mbrl.training.stages import Stage
from lit_mbrl.training.update import SequenceBatchSpec, Update, check_order
from lit_mbrl.utils import distributed
from lit_mbrl.utils.options import options, take
from lit_mbrl.utils.types import PositiveFloat, Rule

Compile = bool | Literal["cudagraphs"]
Bounds = Annotated[
    tuple[float, float],
    Rule("the lowest and the highest standard deviation, as [0.1,10]", lambda b: 0 < b[0] <= b[1]),
]
Normalize = bool | Bounds


@options
class Algorithm(ManualOptimization):
    """Base of all algorithms; subclasses fill in `build`, `updates`, `act` and their losses."""

    section: ClassVar[str] = "model"
    paper: ClassVar[str] = ""
    continuous_actions: ClassVar[bool] = True
    cpu_only: ClassVar[bool] = False  # refused on other devices
    # Whether observations are images (uint8 [C, H, W]): only vectors (False), only images (True), or both (None).
    pixels: ClassVar[bool | None] = False
    learns_from: ClassVar[str] = "transitions"  # or "sequences" or "rollouts": each has its data module
    takes_relabelled: ClassVar[bool] = False  # whether it learns from nothing but `data.sample()`'s transitions
    also_evaluated: ClassVar[tuple[str, ...]] = ()  # names of further policies: `further_policy`
    # Options that a resumed run cannot change, since their work is done or the weights depend on them.
    fixed_on_resume: ClassVar[tuple[str, ...]] = ("normalize_observations",)
    # Options by the stage that uses them first, in order: if they change later, it and those after it are done anew.
    stage_options: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

    normalize_observations: Normalize = False
    """Keep running statistics of the observations and feed networks `(x - mean) / std`, at acting and in every batch
    with the same numbers (`networks.RunningNormalizer`). The standard deviation is clipped to [0.1, 10], as in SVG's
    public code, or to bounds given in the place of true: [1e-6, 1e6]."""
    compile: Compile = False
    """Run the updates of a training step as compiled graphs (`training.compiled`); `"cudagraphs"` also replays them as
    CUDA graphs. Where that is impossible a line says why, and the training step runs eagerly."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the gradient of every update that says nothing else to this global norm; null: do not."""

    def __post_init__(self) -> None:
        self.needs_metrics = False  # whether metrics are recorded in every training step, for `on_train_metrics`
        self.normalizer: RunningNormalizer | None = None
        self._built = False
        self.spec: Any = None  # the environment's (`envs.Spec`), from `configure` on
        self.compile_option: Compile = take(self, "compile")  # a method of modules has the name
        self._compiled: CompiledTrainStep | None = None

    # ------------------------------------------------------------------ what an algorithm says
    def build(self, spec: Any) -> None:
        """Builds the networks for an environment (`envs.Spec`): called once, when it is known."""
        raise NotImplementedError

    def updates(self) -> Iterator[Update]:
        """The updates of one training step, in their order; none, and no batch, where all is fitted between steps."""
        yield from ()

    def act(self, observation: Tensor) -> Tensor:
        """The deterministic action `[N, A]` for evaluation at (normalised) observations `[N, O]`."""
        raise NotImplementedError

    def eval_policy(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns an evaluation's policy, with a memory of its own: observations and `is_init` `[K, 1]` to actions."""
        return lambda observation, is_init: self.act(observation)

    def further_policy(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns a policy of `also_evaluated`, as `eval_policy`: evaluations log its `eval/<name>_return`, too."""
        raise NotImplementedError

    def explore(self, observation: Tensor, is_init: Tensor) -> Tensor:
        """The exploring action `[N, A]`; `is_init` `[N, 1]` marks the first observation of an episode."""
        raise NotImplementedError

    def lose_track(self) -> None:
        """Forgets what acting remembers, since an episode has begun without `is_init` for `explore`; nothing here."""

    def restart_episodes(self, envs: Iterable[int]) -> None:
        """Forgets what is summed over running episodes, where new ones begin in these environments; nothing here."""

    def targets(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Pairs `(online, target)` for `lit_mbrl.callbacks.SoftTargetUpdate`; none by default."""
        yield from ()

    def sampling(self) -> SequenceBatchSpec:
        """Returns which sequences a training step needs; none by default."""
        return SequenceBatchSpec()

    def on_train_metrics(self, recorded: dict[str, Tensor]) -> None:
        """Takes this rank's metrics after every training step, if `needs_metrics`."""

    def episode_metrics(self, episodes: TensorDictBase) -> dict[str, Tensor]:
        """Further metrics from fresh evaluation episodes `[K, T]` (observations normalised, `"mask"` marks frames)."""
        return {}

    def compile_key(self) -> Hashable:
        """Returns what losses branch on besides inputs and options: a compiled training step has a graph for each.

        A loss that reads a clock has to be covered here.
        """
        return ()

    # ------------------------------------------------------------------ where the control flow is the paper's
    def add_buffers(self, data: Any) -> None:
        """Asks the data module for buffers besides its replay (`data.add_buffer`), which `data.buffers` has then."""

    def stages(self, data: Any) -> Sequence[Stage]:
        """Returns the stages of a run, which together take `data.total_frames`; none: it has but one."""
        return ()

    def start_stage(self, data: Any, name: str) -> None:
        """Does what comes first in a stage, which a run that is resumed within it does not do again; nothing here."""

    def before_collect(self, data: Any) -> None:
        """Does what comes before environment steps, as far as `data.schedule.due("fit", every=250)`; nothing here."""

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Does what comes after environment steps, here: takes them into the observations' statistics.

        Args:
            frames: `[num_envs, T]`, raw, valid until the next collection; they are in the replay already.
        """
        self.update_statistics(frames)

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """Returns the batches of a training step, this rank's share; here what `data` serves, if there are updates."""
        return data.sample() if self.update_list else {}

    # ------------------------------------------------------------------ construction
    def check(self, spec: Any) -> None:
        """See `check_environment`."""
        check_environment(self, spec)

    def check_devices(self, count: int) -> None:
        """Raises `OptionError` if the algorithm cannot be trained on so many devices; any number here."""

    def check_data(self, data: Any) -> None:
        """Raises `OptionError` if options of the data module, which is of the right kind, do not suit; they do here."""

    def check_start(self, spec: Any) -> None:
        """Raises `OptionError` if what training needs besides its data, as a teacher, is not there; nothing here."""

    def configure_model(self) -> None:
        """Builds the networks from the environment's sizes (Lightning calls this once the data module is set up)."""
        spec = spec_of_run(self)
        if not self._built:
            self.configure(spec)

    def configure(self, spec: Any) -> None:
        """Builds networks and the ordered list of updates for an environment (`envs.Spec`), without a trainer, too."""
        self.spec = spec
        if self.normalize_observations:
            bounds = () if self.normalize_observations is True else (tuple(self.normalize_observations),)
            self.normalizer = RunningNormalizer(spec.observation_dim, *bounds)
        self.build(spec)
        for _, target in self.targets():
            target.requires_grad_(False)
        self.update_list = [self._clipped(update) for update in self.updates()]
        check_order(self.update_list)
        self._built = True

    def _clipped(self, update: Update) -> Update:
        if self.max_grad_norm is None or update.max_grad_norm is not None or update.searches:
            return update  # a search has a length of its own
        return replace(update, max_grad_norm=self.max_grad_norm)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One per update, in the order of `updates()`."""
        return [update.optimizer() for update in self.update_list]

    def on_train_start(self) -> None:
        """Starts to measure `wall_time`, and sets the configured learning rates in place of a checkpoint's."""
        super().on_train_start()
        self.start_clock()
        self.finite.train_step = self.train_steps
        for update, optimizer in zip(self.update_list, self.trainer.optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = update.lr

    def on_fit_start(self) -> None:
        """Forgets what has been compiled in an earlier fit; raises `OptionError` where training cannot go well."""
        super().on_fit_start()
        self.check_start(self.spec)
        check_precision(self, self.trainer.precision_plugin)
        callbacks = self.trainer.callbacks
        check_targets(self, callbacks, [type(callback).__name__ for callback in callbacks])
        self._compiled = None

    def termination_rule(self) -> TerminationRule | None:
        """The task's known termination rule on observations as the networks see them; None: there is none."""
        rule, normalizer = self.spec.terminated, self.normalizer
        if rule is None or normalizer is None:
            return rule
        return lambda x, u, following: rule(normalizer.inverse(x), u, normalizer.inverse(following))

    # ------------------------------------------------------------------ one training step
    def normalize(self, observation: Tensor) -> Tensor:
        """Observations as the networks see them, `[..., O]`."""
        return observation if self.normalizer is None else self.normalizer(observation)

    def update_statistics(self, frames: TensorDictBase) -> None:
        """Updates the observations' statistics with new frames (any batch shape, raw), before they are learned from.

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

    def training_step(self, batch: dict[str, TensorDictBase | None], batch_idx: int) -> None:
        """Runs one training step: every update of `updates()`, in order.

        Args:
            batch: `"transitions"` `[B]`, except for `data.SequenceReplay`, and, where the algorithm asks for them,
                `"sequences"` `[repeat, B, T]`, raw as they are in the replay; or what else its `sample` returns. The
                updates of a batch that is None are left out.
        """
        train_steps, logs = self.train_steps, self.logs_now()
        self.finite.train_step = train_steps
        self._recording = logs or self.needs_metrics
        self.count_model_rollouts(batch)
        due = [index for index, update in enumerate(self.update_list) if update.is_due(train_steps, batch)]
        if (stage := self.trainer.datamodule.update_schedule.stage) is not None:
            due = [index for index in due if stage.has(self.update_list[index].name)]
        if due and not (self.compile_option and self._take_compiled_steps(batch, due)):
            self._take_steps(batch, due)
        if self.needs_metrics:
            self.on_train_metrics(self._recorded)
        if logs:
            self.log_training()

    def _take_steps(self, batch: dict[str, TensorDictBase | None], due: list[int]) -> None:
        batches = {name: self.prepare_batch(frames) for name, frames in batch.items() if frames is not None}
        given: dict[str, Any] = {}
        for index in due:
            update = self.update_list[index]
            for k in range(update.repeat):
                frames = batches[update.batch][k] if update.batch == "sequences" else batches[update.batch]
                self.record(f"loss/{update.name}", self.gradient_step(update, self._optimizers[index], frames, given))

    def _take_compiled_steps(self, batch: dict[str, TensorDictBase | None], due: list[int]) -> bool:
        """Returns whether the training step could be compiled, and so has been run."""
        try:
            if self._compiled is None:
                self._compiled = self._start_compiling()
            recorded, finite = self._compiled.run(batch, due, self._recording)
        except CompileError as reason:
            self.compile_option = False
            rank_zero_warn(f"model.compile: the training steps run eagerly, since {reason}")
            return False
        names = [self.update_list[index].name for index in due for _ in range(self.update_list[index].repeat)]
        count_steps(self.trainer, len(names))
        self.finite.record(names, finite)
        self._recorded |= recorded
        return True

    def _start_compiling(self) -> CompiledTrainStep:
        if self.trainer.world_size > 1:
            raise CompileError("several devices average their gradients between the passes")
        if self._scaler is not None:
            raise CompileError("16-mixed scales its losses between the passes")
        rank_zero_info("model.compile: compiling the updates of a training step, up to a minute the first time")
        return CompiledTrainStep(self, self.trainer.optimizers, cuda_graphs=self.compile_option == "cudagraphs")

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """While the losses are traced for a compiled training step: they record, and shall read no clock.

        Raises:
            CompileError: if a loss has read a clock that `compile_key` does not cover.
        """
        recording, recorded, self._recorded = self._recording, self._recorded, {}
        self._recording, self._clock_is_read = True, False
        try:
            yield
        finally:
            self._recording, self._recorded = recording, recorded
        if self._clock_is_read and self.compile_key() == ():
            raise CompileError(f"a loss of {type(self).__name__} reads a clock, which its compile_key() does not cover")

    # ------------------------------------------------------------------ evaluation
    def validation_step(self, episodes: TensorDictBase, batch_idx: int) -> None:
        """Logs return and length of deterministic evaluation episodes `[K, T]` and the algorithm's own metrics.

        Batches after the first are of the data module's further `evaluations`.

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
            name = f"eval/{self.trainer.datamodule.evaluations()[batch_idx]}_return"
            metrics = {name: returns.mean(), f"{name}_std": returns.std(correction=0)}
        # The ranks have the same episodes; that they agree on what is best must not hang on their rounding.
        self.log_dict(metrics, logger=False, batch_size=1, sync_dist=distributed.world_size() > 1)
        if self.trainer.state.fn == "fit":
            self.log_metrics({name: float(value) for name, value in metrics.items()})
