"""Every bypass of Lightning and torch in an eager training step, each with what it gains; one switch turns all off.

The switch is `fast_path` (a key of a run's configuration, an attribute of an `Algorithm`). Without it Lightning runs
the steps, and their results are the same, bit for bit. `bypasses` says where the bypasses are taken.

Gains are medians [quartiles] of the CPU time of a training step, in percent of what it takes without the bypass, on one
core (`python -m benchmarks.studies.bypasses`): of SAC with two layers of 256 units on Pendulum, of PPO with 64 units
and minibatches of 64 on CartPole. All together gain 19.0 % [18.2, 19.8] and 42.1 % [37.1, 45.7]. What gains less than
2 % of any of them is not here. (Compiled training steps have an option of their own, `compile`.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from lit_mbrl.networks import mlp
from lit_mbrl.training.optim import Adam, SearchOptimizer

_AROUND_STEPS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_OF_STEPS = ("manual_backward", "backward", "optimizer_step", "optimizer_zero_grad")
_AROUND_TRANSFER = ("on_before_batch_transfer", "on_after_batch_transfer")
_OF_BATCHES = (*_AROUND_TRANSFER, "transfer_batch_to_device", "on_train_batch_start", "on_train_batch_end")


def bypasses(trainer: Trainer, module: LightningModule) -> bool:
    """Returns whether Lightning would do nothing around a step but call `loss.backward` and `optimizer.step`.

    So it is on one device, without a gradient scaler, a profiler or a scheduler, and as long as no callback and no
    method of the module asks to be called around them.
    """
    precision = trainer.precision_plugin
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(precision) in (Precision, MixedPrecision)
        and getattr(precision, "scaler", None) is None
        and type(trainer.profiler) is PassThroughProfiler
        and not trainer.lr_scheduler_configs
        and all(isinstance(optimizer, Adam | SearchOptimizer) for optimizer in trainer.optimizers)
        and not any(_overrides(module, LightningModule, name) for name in (*_AROUND_STEPS, *_OF_STEPS))
        and not any(_overrides(callback, Callback, hook) for callback in trainer.callbacks for hook in _AROUND_STEPS)
    )


def backward(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Computes the gradients of these parameters past Lightning's `manual_backward`.

    Gain: 3.9 % [1.8, 4.9]; of PPO 6.1 % [5.0, 9.2].
    """
    loss.backward(inputs=parameters)


def step(trainer: Trainer, optimizer: Adam) -> None:
    """Takes a step along the gradients, past Lightning's wrapper and torch's work around its fused kernel.

    torch looks for an accelerator at every step (to check CUDA graph capture), which after the import of Lightning goes
    to the NVIDIA library, and takes parameters and state apart anew; both take longer than the kernel.

    Gain: 12.7 % [12.1, 13.6], nearly all of it torch's (about half of that would be left if
    `PYTORCH_NVML_BASED_CUDA_CHECK` were unset); of PPO 27.3 % [21.2, 35.7], of which 21.8 % [19.0, 24.5] are torch's.
    """
    count_steps(trainer, 1)
    group = optimizer.param_groups[0]
    gradients = [parameter.grad for parameter in group["params"]]
    if _has_more_to_do(optimizer, group) or any(gradient is None for gradient in gradients):
        optimizer.step()
        return
    state, found_inf = optimizer.tensors(), getattr(optimizer, "found_inf", None)
    state.steps.add_(1)
    torch._fused_adam_(
        state.parameters,
        gradients,
        state.exp_avgs,
        state.exp_avg_sqs,
        [],
        state.each_step,
        amsgrad=False,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )
    if found_inf is not None:
        state.steps.sub_(found_inf)


def use_layers(on: bool) -> None:
    """Lets the layers of every perceptron be computed by `apply_layers`, or by calling them."""
    mlp.apply_layers = apply_layers if on else mlp.call_layers


def apply_layers(x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    """Computes what layers make of `x` past `nn.Module.__call__`, which looks for hooks; by it where there are any.

    Of a single row, as in acting, that takes as long as the layer. The weights are in a layer's own dictionaries: its
    attributes are looked up by way of its class. TensorDict's functional calls keep them elsewhere.

    Gain: 1.2 % [0.8, 1.9]; of SAC with 64 units 2.6 % [2.4, 2.9], of PPO 3.9 % [-2.3, 6.6].
    """
    hooked = nn.modules.module._has_any_global_hook()
    for layer in layers:
        if (
            hooked
            or layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        ):
            x = layer(x)
        elif (kind := type(layer)) is nn.Linear and (weight := layer._parameters.get("weight")) is not None:
            x = F.linear(x, weight, layer._parameters["bias"])
        elif kind is nn.ReLU and not layer.inplace:
            x = torch.relu(x)
        else:
            x = layer.forward(x)
    return x


def _has_more_to_do(optimizer: Adam, group: dict[str, Any]) -> bool:
    """Returns whether hooks are set on `step`, as a learning rate scheduler does, or an option asks for more."""
    return bool(
        "step" in optimizer.__dict__
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
        or len(optimizer.param_groups) > 1
        or not group["fused"]
        or group["amsgrad"]
        or group["decoupled_weight_decay"]
    )


def count_steps(trainer: Trainer, steps: int) -> None:
    """Counts steps for Lightning's `global_step` and `max_steps`, as its own optimiser step does."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (progress.total, progress.current):
        counts.ready += steps
        counts.completed += steps


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, without what no training step here needs.

    Between two batches Lightning calls every hook of every callback, most of which do nothing, looks up signatures and
    overridden methods anew, enters a profiler's context a dozen times, and asks schedulers and metrics that are not
    there. Here that is looked up once per epoch. It calls the same hooks in the same order, of those that are there;
    where somebody else's hook has to be called it is Lightning's own loop.

    Gain: 3.2 % [2.3, 3.4]; of SAC with 64 units 7.7 % [6.5, 8.5], of PPO 13.8 % [13.4, 14.8].
    """

    _bypasses = False

    def on_run_start(self, data_fetcher: Any) -> None:
        """Looks up, at the start of an epoch, the callbacks with hooks in a training step."""
        super().on_run_start(data_fetcher)
        trainer, data = self.trainer, self.trainer.datamodule
        module: Any = trainer.lightning_module
        self._bypasses = (
            module.uses_fast_path
            and not any(_overrides(module, LightningModule, hook) for hook in _OF_BATCHES)
            and not any(_overrides(data, LightningDataModule, hook) for hook in _AROUND_TRANSFER)
        )
        self._starts, self._ends = (
            [getattr(callback, hook) for callback in trainer.callbacks if _overrides(callback, Callback, hook)]
            for hook in ("on_train_batch_start", "on_train_batch_end")
        )

    def advance(self, data_fetcher: Any) -> None:
        """One training step: see Lightning's method, which this follows line by line."""
        if not self._bypasses or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, progress, connector = self.trainer, self.batch_progress, self.trainer._logger_connector
        module, strategy, optimization = trainer.lightning_module, trainer.strategy, self.manual_optimization
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.datamodule.transfer_batch_to_device(batch, strategy.root_device, 0)
        progress.increment_ready()
        connector.on_batch_start(batch)
        names = module.__dict__  # `nn.Module.__setattr__` first looks whether it is a weight
        names["_current_fx_name"] = "on_train_batch_start"
        for hook in self._starts:
            hook(trainer, module, batch, batch_idx)
        progress.increment_started()
        names["_current_fx_name"] = "training_step"
        optimization.on_run_start()
        output = strategy.training_step(batch, batch_idx)
        optimization._output = optimization.output_result_cls.from_training_step_output(output).asdict()
        output = optimization.on_run_end()
        progress.increment_processed()
        names["_current_fx_name"] = "on_train_batch_end"
        for hook in self._ends:
            hook(trainer, module, output, batch, batch_idx)
        names["_current_fx_name"] = None
        if self._results:
            connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if self._results:
            connector.update_train_step_metrics()


def use_epoch_loop(trainer: Trainer) -> None:
    """Puts an `EpochLoop` in the place of the trainer's own; a loop of somebody else's stays."""
    old = trainer.fit_loop.epoch_loop
    if type(old) is _TrainingEpochLoop:
        new = EpochLoop(trainer, min_steps=old.min_steps, max_steps=old.max_steps)
        new.val_loop = old.val_loop  # knows where the evaluation's data come from
        trainer.fit_loop.epoch_loop = new


def _overrides(instance: object, base: type, name: str) -> bool:
    """Returns whether a hook is a class's own, or set on the instance as `LambdaCallback` does."""
    return vars(instance).get(name, getattr(type(instance), name)) is not getattr(base, name)
