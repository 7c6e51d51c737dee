"""A training step as compiled graphs, exactly the updates that the eager loop takes.

The training step is traced once, without being run: losses, gradients (`torch.autograd.grad` in the parameters of each
update), clipping and Adam become one list of tensor operations, which torch's Inductor compiles.

    raw batch, noise, parameters, Adam's state  -->  [ normalise -> loss -> gradient -> Adam ] per update  -->  metrics
                         ^                                                                     |
                         +---------------------------- written in place -----------------------+

Modules, optimisers and checkpoints stay those of the eager loop, and a run may go from one to the other. An update that
is repeated on batches of its own has a graph of its own, which is called as often; the others share one.

Noise that a loss draws is drawn before the graph is called, by the same calls in the same order, so both ways use the
same random numbers; what differs is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from lit_mbrl.training.optim import Adam, adam_step
from lit_mbrl.training.tracing import lift_random_ops, value_and_gradients
from lit_mbrl.training.update import Update

# What is left in the graph of random operations, as a draw from computed probabilities, uses eager's generator, too.
_OPTIONS = {"fallback_random": True, "size_asserts": False, "alignment_asserts": False, "nan_asserts": False}
_CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_


class CompileError(Exception):
    """Says in one line why this algorithm, here, has to be run eagerly."""


@dataclass(frozen=True)
class _Group:
    """Updates that share a graph, and what the graph needs and gives."""

    updates: Sequence[tuple[int, Update]]
    batch: str
    repeat: int


@dataclass(frozen=True)
class _Graph:
    call: Callable[..., Any]
    keys: Sequence[Any]  # of the batch
    noise: Sequence[Callable[[], Tensor]]  # draws the graph's random inputs
    recorded: Sequence[str]  # names of the metrics it returns


class CompiledTrainStep:
    """Runs the updates of one training step as compiled graphs.

    Args:
        algorithm: an `Algorithm`, built, its optimisers loaded.
        optimizers: one `Adam` per update.
        cuda_graphs: replay the compiled graph as a CUDA graph.

    Raises:
        CompileError: for optimisers other than this package's plain Adam.
    """

    def __init__(self, algorithm: Any, optimizers: Sequence[Adam], cuda_graphs: bool) -> None:
        self._algorithm, self._optimizers, self._cuda_graphs = algorithm, optimizers, cuda_graphs
        self._graphs: dict[Hashable, _Graph] = {}
        self._groups: dict[Sequence[int], list[_Group]] = {}
        self._lr = [torch.tensor(math.nan, device=algorithm.device) for _ in optimizers]
        self._lr_set = [math.nan] * len(optimizers)
        self._names = {id(parameter): name for name, parameter in algorithm.named_parameters()}
        for update, optimizer in zip(algorithm.update_list, optimizers, strict=True):
            self._check(update, optimizer)

    @staticmethod
    def _check(update: Update, optimizer: torch.optim.Optimizer) -> None:
        if type(optimizer) is not Adam or len(optimizer.param_groups) != 1:
            raise CompileError(f"the optimiser of {update.name!r} is not one plain lit_mbrl.training.optim.Adam")
        group = optimizer.param_groups[0]
        if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
            raise CompileError(f"the optimiser of {update.name!r} is Adam with further options")

    def run(
        self, batches: dict[str, TensorDictBase], due: Sequence[int], recording: bool = True
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Takes the steps of the updates with these indices.

        Args:
            batches: raw, as `Algorithm.training_step` gets them.
            due: indices into the algorithm's list of updates, ascending.
            recording: whether anybody wants the metrics.

        Returns:
            The recorded metrics, and for each gradient step whether it was finite, and so was taken, `[steps]`.
        """
        for index in due:
            self._set_lr(index)
        recorded: dict[str, Tensor] = {}
        finite: list[Tensor] = []
        due = tuple(due)
        if due not in self._groups:
            self._groups[due] = self.groups(due)
        for group in self._groups[due]:
            for k in range(group.repeat):
                batch = batches[group.batch][k] if group.batch == "sequences" else batches[group.batch]
                names, values, flags = self._call(group, batch)
                if recording:
                    recorded |= zip(names, values.unbind(), strict=True)
                finite.append(flags)
        return recorded, torch.cat(finite)

    def groups(self, due: Sequence[int]) -> list[_Group]:
        """The due updates by the graphs they are in: those that are not repeated and read one batch, together.

        Raises:
            CompileError: if an update takes what one in another graph gives.
        """
        groups: list[_Group] = []
        for index in due:
            update = self._algorithm.update_list[index]
            last = groups[-1] if groups else None
            if last is not None and update.repeat == last.repeat == 1 and last.batch == update.batch:
                groups[-1] = _Group([*last.updates, (index, update)], last.batch, 1)
            else:
                groups.append(_Group([(index, update)], update.batch, update.repeat))
        for group in groups:
            known: set[str] = set()
            for _, update in group.updates:
                if missing := set(update.takes) - known:
                    raise CompileError(f"{update.name!r} takes {missing.pop()!r} from an update in another graph")
                known |= set(update.gives)
        return groups

    def _set_lr(self, index: int) -> None:
        lr = self._optimizers[index].param_groups[0]["lr"]
        if lr != self._lr_set[index]:
            self._lr[index].fill_(lr)
            self._lr_set[index] = lr

    # ------------------------------------------------------------------ calling
    def _call(self, group: _Group, batch: TensorDictBase) -> tuple[Sequence[str], Tensor, Tensor]:
        key = (tuple(index for index, _ in group.updates), self._algorithm.compile_key())
        graph = self._graphs.get(key)
        if graph is None:
            try:
                graph = self._graphs[key] = self._compile(group, batch)
            except CompileError:
                raise
            except Exception as error:  # an error of the losses themselves comes again, from the eager training step
                updates = ", ".join(update.name for _, update in group.updates)
                reason = str(error).strip().split("\n")[0]
                raise CompileError(f"{updates}: {type(error).__name__}: {reason}") from error
        # Autocast has been traced; a second one over the graph would cast the products inside it again.
        with torch.no_grad(), torch.autocast(self._algorithm.device.type, enabled=False):
            values, flags = graph.call(*(batch[key] for key in graph.keys), *(draw() for draw in graph.noise))
        return graph.recorded, values, flags

    def _compile(self, group: _Group, batch: TensorDictBase) -> _Graph:
        algorithm = self._algorithm
        keys = sorted(batch.keys(include_nested=True, leaves_only=True), key=str)
        state = self._state(group)
        names, tensors = list(state), list(state.values())
        recorded: list[str] = []

        def steps(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            frames = TensorDict({}, batch.batch_size)
            for key, value in zip(keys, inputs, strict=False):
                frames[key] = value
            before = dict(zip(names, inputs[len(keys) :], strict=True))
            after, values, flags = _steps(algorithm, group, frames, before, self._names, self._optimizers)
            for name, value in after.items():
                before[name].copy_(value)
            recorded[:] = values
            return torch.stack([value.float() for value in values.values()]), torch.stack(flags)

        example = [batch[key] for key in keys] + tensors
        with algorithm.tracing():
            graph = make_fx(steps, tracing_mode="fake")(*example)
        noise, drawn = lift_random_ops(graph)
        example += drawn
        compiled = inductor(graph, example)
        count = len(keys)

        def call(*inputs: Tensor) -> Any:
            return compiled(*inputs[:count], *tensors, *inputs[count:])

        if self._cuda_graphs:
            from tensordict.nn import CudaGraphModule

            return _Graph(CudaGraphModule(call), keys, noise, recorded)
        return _Graph(call, keys, noise, recorded)

    def _state(self, group: _Group) -> dict[str, Tensor]:
        """Everything that the steps read and write: parameters, buffers, Adam's state and the learning rates."""
        algorithm = self._algorithm
        state = {name: parameter.detach() for name, parameter in algorithm.named_parameters()}
        state |= dict(algorithm.named_buffers())
        for index, update in group.updates:
            tensors = self._optimizers[index].tensors()
            state[_lr(update)], state[_steps_of(update)] = self._lr[index], tensors.steps
            for k, parameter in enumerate(tensors.parameters):
                name = self._names[id(parameter)]
                state[_adam(update, name, "exp_avg")] = tensors.exp_avgs[k]
                state[_adam(update, name, "exp_avg_sq")] = tensors.exp_avg_sqs[k]
        return state


def inductor(graph: GraphModule, example: list[Tensor]) -> Callable[..., Any]:
    """Compiles a graph for inputs like these; torch keeps the result in its cache on the disk.

    Not `torch.compile`, whose guards look at each of some hundred inputs again in every call.
    """
    from torch._inductor import standalone_compile
    from torch._inductor.exc import InductorError
    from torch._inductor.utils import fresh_cache

    def compile() -> Callable[..., Any]:
        options = {"config_patches": _OPTIONS}
        return standalone_compile(graph, example, dynamic_shapes="from_example_inputs", options=options)

    try:
        return compile()
    except (InductorError, ImportError) as error:
        cause = getattr(error, "inner_exception", error)
        if not isinstance(cause, ImportError):
            raise
        # A process that was killed while it compiled leaves half a library, which torch would try to load for ever.
        rank_zero_warn(f"model.compile: torch's cache is broken, delete it ({cause}); going on without")
        with fresh_cache():
            return compile()


def _steps(
    algorithm: Any,
    group: _Group,
    frames: TensorDictBase,
    state: dict[str, Tensor],
    names: dict[int, str],
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    """The group's gradient steps as a function: what has changed, the recorded metrics, whether each was finite."""
    module = [name for name in state if "/" not in name]
    state, before = dict(state), state
    values: dict[str, Tensor] = {}
    given: dict[str, Any] = {}
    flags: list[Tensor] = []
    frames_are_prepared = False
    for index, update in group.updates:
        options = optimizers[index].param_groups[0]
        trained = [names[id(parameter)] for parameter in update.parameters()]
        leaves = {name: state[name] for name in module}

        def loss_of(update: Update = update) -> Tensor:
            nonlocal frames, frames_are_prepared
            if not frames_are_prepared:
                frames, frames_are_prepared = algorithm.prepare_batch(frames), True
            return update.compute_loss(frames, given)

        loss, gradients = value_and_gradients(algorithm, leaves, trained, loss_of)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        finite = torch.isfinite(loss.detach() + norm)
        if update.max_grad_norm is not None:
            scale = (update.max_grad_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0)
            gradients = tuple(gradient * scale for gradient in gradients)
        steps = state[_steps_of(update)] + 1.0
        for name, gradient, step in zip(trained, gradients, steps.unbind(), strict=True):
            entries = [name, _adam(update, name, "exp_avg"), _adam(update, name, "exp_avg_sq")]
            old = [state[entry] for entry in entries]
            new = adam_step(gradient, state[_lr(update)], step, *old, options["betas"], options["eps"])
            for entry, ago, now in zip(entries, old, new, strict=True):
                state[entry] = torch.where(finite, now, ago)
        state[_steps_of(update)] = torch.where(finite, steps, state[_steps_of(update)])
        flags.append(finite)
        values |= algorithm.pop_metrics() | {f"loss/{update.name}": loss.detach()}
    return {name: state[name] for name in state if state[name] is not before[name]}, values, flags


def _lr(update: Update) -> str:
    return f"lr/{update.name}"


def _steps_of(update: Update) -> str:
    return f"steps/{update.name}"


def _adam(update: Update, name: str, entry: str) -> str:
    return f"adam/{update.name}/{name}/{entry}"
