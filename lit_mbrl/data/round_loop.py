"""Lightning's loop over the batches of an epoch, without what no training step here needs.

Between two batches Lightning calls every hook of every callback, most of which do nothing, looks up signatures and
overridden methods anew, enters a profiler's context a dozen times, and asks schedulers and metrics that are not there:
together about as long as a step of the environment and a pass of the policy. Here that is looked up once per epoch.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PassThroughProfiler

from lit_mbrl.utils.hooks import overrides

_TRANSFER = "transfer_batch_to_device"
_AROUND_TRANSFER = ("on_before_batch_transfer", "on_after_batch_transfer")


class RoundLoop(_TrainingEpochLoop):
    """The same hooks in the same order, of those that are there; with a profiler or schedulers, Lightning's own loop.

    What it leaves out: hooks that nobody overrides, learning rate schedulers, and the collection of `self.log`'s
    metrics in training steps where nobody has called it.
    """

    _plain = _validates_last = False

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Looks up, at the start of an epoch, the callbacks with hooks in a training step."""
        super().on_run_start(data_fetcher)
        trainer, module, data = self.trainer, self.trainer.lightning_module, self.trainer.datamodule
        self._plain = (
            type(trainer.profiler) is PassThroughProfiler
            and isinstance(data_fetcher, _PrefetchDataFetcher)
            and not module.automatic_optimization
            and not trainer.lr_scheduler_configs
            and not any(overrides(module, LightningModule, hook) for hook in (*_AROUND_TRANSFER, _TRANSFER))
            and not any(overrides(data, LightningDataModule, hook) for hook in _AROUND_TRANSFER)
        )
        self._validates_last = (
            trainer.val_check_interval == 1.0
            and trainer.check_val_every_n_epoch is not None
            and trainer._val_check_time_interval is None
            and not isinstance(trainer.limit_train_batches, int)
        )
        self._starts, self._ends = (
            [getattr(callback, hook) for callback in trainer.callbacks if overrides(callback, Callback, hook)]
            for hook in ("on_train_batch_start", "on_train_batch_end")
        )

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """One training step: see Lightning's method, which this follows line by line."""
        if not self._plain or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, strategy = self.trainer, self.trainer.strategy
        module, progress, connector = trainer.lightning_module, self.batch_progress, trainer._logger_connector
        self.val_loop.restarting = False
        if trainer.world_size > 1:
            self._broadcast_sigterm_tensor()
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.precision_plugin.convert_input(batch)
        batch = trainer.datamodule.transfer_batch_to_device(batch, strategy.root_device, 0)
        progress.increment_ready()
        connector.on_batch_start(batch)
        # In the module's dictionary: `nn.Module.__setattr__` first looks whether it is a weight.
        names = module.__dict__
        names["_current_fx_name"] = "on_train_batch_start"
        for hook in self._starts:
            hook(trainer, module, batch, batch_idx)
        skip = module.on_train_batch_start(batch, batch_idx) == -1
        strategy.on_train_batch_start(batch, batch_idx)
        if skip:
            names["_current_fx_name"] = None
            progress.increment_by(0, is_last_batch=True)
            progress.increment_processed()
            raise StopIteration
        progress.increment_started()
        names["_current_fx_name"] = "training_step"
        output = self._train(batch, batch_idx)
        progress.increment_processed()
        names["_current_fx_name"] = "on_train_batch_end"
        for hook in self._ends:
            hook(trainer, module, output, batch, batch_idx)
        module.on_train_batch_end(output, batch, batch_idx)
        names["_current_fx_name"] = None
        if self._results:
            connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if self._results:
            connector.update_train_step_metrics()

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        early = not (self.batch_progress.is_last_batch or self.trainer.should_stop)
        return not (self._plain and self._validates_last and early) and super()._should_check_val_fx(data_fetcher)

    def _train(self, batch: Any, batch_idx: int) -> Any:
        loop = self.manual_optimization
        loop.on_run_start()
        output = self.trainer.strategy.training_step(batch, batch_idx)
        loop._output = loop.output_result_cls.from_training_step_output(output).asdict()
        return loop.on_run_end()


def use_round_loop(trainer: Trainer) -> None:
    """Puts a `RoundLoop` in the place of the trainer's own; a loop of somebody else's stays."""
    old = trainer.fit_loop.epoch_loop
    if type(old) is _TrainingEpochLoop:
        new = RoundLoop(trainer, min_steps=old.min_steps, max_steps=old.max_steps)
        new.val_loop = old.val_loop  # knows where the evaluation's data come from
        trainer.fit_loop.epoch_loop = new
