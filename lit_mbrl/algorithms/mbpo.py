"""MBPO: soft actor-critic on short rollouts of a learned model that branch off from real states.

Janner et al. 2019, "When to Trust Your Model: Model-Based Policy Optimization" (arXiv 1906.08253v3), algorithm 2. The
policy is optimised by SAC, unchanged; what differs is the data. Algorithm 2 is in `before_collect`, `after_collect` and
`sample`:

    environment -> replay -----------------------> real rows ----+
                      |                                          +--> one batch per round
                      +--> fit the model -> roll it out          |
                                               -> model buffer --+

Readings and departures (the paper leaves the model's training to its code, `models.fit` and `models.Ensemble`):

- A rollout starts at real states drawn uniformly, follows the stochastic policy, and takes every step in an elite of
  the ensemble that is drawn anew for each sample. A sample whose episode terminates leaves the rollout.
- Where the termination is learned and no known rule, it is drawn with the predicted probability.
- The model sees raw observations, whether or not `normalize_observations` gives the policy others.
- The code fits and rolls out before it takes the environment step; algorithm 2, and we, roll out after it.
- A model of sequences (`models.Recurrent`) is fitted to all of them that lie in the one part of the real data, and held
  out are all in the other: blocks of consecutive frames, drawn anew for each fit.
- SAC's critic loss is twice the code's, which has a factor 1/2: Adam does not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.models import Descend, Ensemble, Objective, WorldModelFactory, fit
from lit_mbrl.training.compiled import CannotCompile
from lit_mbrl.training.compiled_loss import CompiledLoss
from lit_mbrl.training.optim import Adam
from lit_mbrl.utils.errors import require
from lit_mbrl.utils.hooks import ModelWorkListener

# What a loss reads of a frame, real or imagined.
_READ = ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated"))


class MBPO(SAC):
    """SAC that learns from a model's data.

    Epochs here are `model_epoch` environment steps after the warm-up: the papers' unit, and not how often the policy is
    evaluated.

    Args:
        model_train_freq: environment steps between two fits of the model; the first is at the end of the warm-up.
        rollout_freq: environment steps between two rollouts; None: `model_train_freq`.
        rollout_batch_size: start states per rollout.
        rollout_schedule: `[e0, e1, k0, k1]`: rollouts have k0 steps up to epoch e0 and k1 from epoch e1 on, and in
            between the integer part of the straight line.
        model_epoch: environment steps of an epoch.
        retain_epochs: the model buffer keeps the transitions of so many epochs, if no rollout ended early.
        real_ratio: share of a batch that is real: `int(real_ratio * data.batch_size)` transitions of each batch.
        world_model: the model, `lit_mbrl.models.Ensemble` (the default, MBPO's) or `lit_mbrl.models.Recurrent`.
        model_batch_size: frames per member and gradient step of a fit.
        holdout_ratio: share of the real data that a fit holds out.
        max_holdout: frames held out at most (at least a sequence and two frames, if the model learns from sequences).
        model_improvement: an epoch of a fit is better if it lowers a member's hold-out error by more than this share.
        model_patience: epochs without a better one for any member, after which a fit ends.
        model_max_epochs: epochs of a fit at most; None: no limit.
        **kwargs: of `SAC`.
    """

    paper = "Janner et al. 2019, arXiv 1906.08253"

    def __init__(
        self,
        model_train_freq: int = 250,
        rollout_freq: int | None = None,
        rollout_batch_size: int = 100_000,
        rollout_schedule: tuple[int, int, int, int] = (20, 150, 1, 1),
        model_epoch: int = 1_000,
        retain_epochs: int = 1,
        real_ratio: float = 0.05,
        world_model: WorldModelFactory | None = None,
        model_batch_size: int = 256,
        holdout_ratio: float = 0.2,
        max_holdout: int = 5_000,
        model_improvement: float = 0.01,
        model_patience: int = 5,
        model_max_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, number in {
            "model_train_freq": model_train_freq,
            "rollout_batch_size": rollout_batch_size,
            "model_epoch": model_epoch,
            "retain_epochs": retain_epochs,
        }.items():
            require(number > 0, f"model.{name}", number, "an integer > 0")
        require(
            rollout_freq is None or rollout_freq > 0,
            "model.rollout_freq",
            rollout_freq,
            "an integer > 0, or null for model.model_train_freq",
        )
        first, last, shortest, longest = rollout_schedule
        require(
            0 <= first <= last and shortest > 0 and longest > 0,
            "model.rollout_schedule",
            list(rollout_schedule),
            "[first epoch, last epoch, length until the first, length from the last], as [20,150,1,15]",
        )
        require(
            math.isfinite(real_ratio) and 0.0 <= real_ratio < 1.0,
            "model.real_ratio",
            real_ratio,
            "a number >= 0 and < 1 (1, no imagined data, is SAC)",
        )
        require(model_batch_size > 0, "model.model_batch_size", model_batch_size, "an integer > 0")
        require(0.0 < holdout_ratio < 1.0, "model.holdout_ratio", holdout_ratio, "a number between 0 and 1")
        require(max_holdout > 0, "model.max_holdout", max_holdout, "an integer > 0")
        require(0.0 <= model_improvement < 1.0, "model.model_improvement", model_improvement, "a number >= 0 and < 1")
        require(model_patience >= 0, "model.model_patience", model_patience, "an integer >= 0")
        require(
            model_max_epochs is None or model_max_epochs > 0,
            "model.model_max_epochs",
            model_max_epochs,
            "an integer > 0, or null for no limit",
        )
        self.model_train_freq, self.rollout_freq = model_train_freq, rollout_freq or model_train_freq
        self.rollout_batch_size, self.rollout_schedule = rollout_batch_size, tuple(rollout_schedule)
        self.model_epoch, self.retain_epochs = model_epoch, retain_epochs
        self.real_ratio = Fraction(str(real_ratio))
        self.world_model_factory = Ensemble() if world_model is None else world_model
        self.fit_options = {
            "batch_size": model_batch_size,
            "holdout_ratio": holdout_ratio,
            "max_holdout": max_holdout,
            "improvement": model_improvement,
            "patience": model_patience,
            "max_epochs": model_max_epochs,
        }
        self._own_optimizers: dict[str, Adam] = {}
        self._saved_optimizers: dict[str, Any] = {}
        self._compiled_losses: dict[str, CompiledLoss] = {}
        self._compile_fits = True  # as far as `compile` asks for it, and until it has failed

    def check_data(self, data: Any) -> None:
        require(
            data.learning_starts >= 2,
            "data.learning_starts",
            data.learning_starts,
            "at least 2: a frame to fit the model to, and one to hold out",
        )

    def check_devices(self, count: int) -> None:
        """Raises `UserError` for more than one, whose models would each be fitted to other data and drift apart."""
        require(count == 1, "trainer.devices", count, f"1 with {type(self).__name__}")

    def build(self, observation_dim: int, action_dim: int) -> None:
        super().build(observation_dim, action_dim)
        self.world_model = self.world_model_factory.build(observation_dim, action_dim, self._terminated)

    # ------------------------------------------------------------------ algorithm 2
    def add_buffers(self, data: Any) -> None:
        length = self.rollout_length(0)
        data.add_buffer("model", self.model_capacity(length), most=self.model_capacity(self.longest_rollout))

    def before_collect(self, data: Any) -> None:
        """Line 4: fits the model to all real data, if it is time to."""
        if data.schedule.due("fit", every=self.model_train_freq):
            self.note(self.fit_model(data.replay))

    def after_collect(self, data: Any, frames: TensorDictBase) -> None:
        """Lines 7-8, after the environment steps of line 6: rolls the model out from real states, if it is time to."""
        super().after_collect(data, frames)
        self.before_collect(data)  # it is time to, if the warm-up has ended in the middle of these frames
        if data.schedule.due("rollout", every=self.rollout_freq):
            length = self.rollout_length(data.schedule.clock // self.model_epoch)
            self.note({"rollout/length": float(length), "rollout/transitions": float(self.fill(data, length))})

    def fill(self, data: Any, length: int) -> int:
        """Fills the model buffer from states drawn uniformly from the replay; returns with how many transitions."""
        buffer, count = data.buffers["model"], 0
        buffer.resize(self.model_capacity(length))
        starts = data.replay.sample_transitions(self.rollout_batch_size)["observation"]
        for step in self.rollout(starts.to(self.device), length):
            buffer.extend(step)
            count += len(step)
        return count

    def sample(self, data: Any) -> dict[str, TensorDictBase]:
        """Lines 9-10: what a round of SAC learns from, real rows first, then those of the model buffer."""
        num_real = self.real_rows(data.batch_size)
        imagined = data.buffers["model"].sample(data.batch_size - num_real)
        if not num_real:
            return {"transitions": imagined}
        return {"transitions": self.mix(data.replay.sample_transitions(num_real), imagined)}

    def real_rows(self, batch_size: int) -> int:
        """Real transitions in each batch."""
        return int(self.real_ratio * batch_size)

    def mix(self, real: TensorDictBase, imagined: TensorDictBase) -> TensorDict:
        """One batch of both, real rows first."""
        rows = TensorDict({}, [len(real) + len(imagined)])
        for key in _READ:
            rows[key] = torch.cat([real[key].to(imagined[key].device), imagined[key]])
        return rows

    # ------------------------------------------------------------------ the schedule of rollouts
    @property
    def longest_rollout(self) -> int:
        """Steps of the longest rollout that the schedule has."""
        return max(self.rollout_schedule[2:])

    def rollout_length(self, epoch: int) -> int:
        """Steps `k` of the rollouts of an epoch."""
        first, last, start, end = self.rollout_schedule
        if epoch <= first:
            return start
        if epoch >= last:
            return end
        return int(start + Fraction(epoch - first, last - first) * (end - start))

    def model_capacity(self, length: int) -> int:
        """Transitions that `retain_epochs` bring with rollouts of `length` steps; at least those of one rollout."""
        rollouts = Fraction(self.rollout_batch_size * self.model_epoch, self.rollout_freq)
        return max(int(self.retain_epochs * length * rollouts), length * self.rollout_batch_size)

    # ------------------------------------------------------------------ the model's data
    @torch.no_grad()
    def rollout(self, observation: Tensor, length: int) -> Iterator[TensorDict]:
        """Rolls the stochastic policy out in the model, on the device of `observation`.

        Args:
            observation: raw start states `[N, O]`.
            length: steps `k`.

        Yields:
            The transitions of each step, `[n]` with n <= N, keys as in `data.buffers.imagined`: those of the samples
            that had not terminated before it.
        """
        state = self.world_model.initial(observation)
        for _ in range(length):
            observation = self.world_model.observation(state)
            action, _ = self.sample_policy(self.normalize(observation))
            state, reward, logit = self.world_model.step(state, action)
            terminated = torch.rand_like(logit) < logit.sigmoid()
            following = {
                "observation": self.world_model.observation(state),
                "reward": reward,
                "terminated": terminated,
            }
            self._model_rollouts += len(observation)
            yield TensorDict({"observation": observation, "action": action, "next": following}, [len(observation)])
            alive = ~terminated.squeeze(-1)
            if not alive.any():
                return
            state = _rows(state, alive)

    # ------------------------------------------------------------------ the model's training
    def fit_model(self, replay: Any) -> dict[str, float]:
        """Fits every objective of the model to all real data; returns metrics.

        Args:
            replay: a `data.Replay`.
        """
        metrics = {"model/epochs": 0.0}
        for objective in self.world_model_factory.objectives(self.world_model):
            optimizer = self.own_optimizer(f"model/{objective.name}", objective.groups(), objective.lr)
            frames, holdout = self.model_frames(objective, replay)
            result = fit(
                objective,
                frames,
                optimizer,
                **self.fit_options,
                holdout=holdout,
                descend=self.descend_own(objective.name, optimizer, self.world_model, objective.max_grad_norm),
                on_epoch=lambda epoch, errors, name=objective.name: self.tell(
                    f"fitting the model's {name}: epoch {epoch}, hold-out error {float(errors.mean()):.3g}"
                ),
            )
            metrics["model/epochs"] += result.epochs
            metrics[f"model/holdout_{objective.name}"] = float(result.errors.mean())
            if objective.members > 1:
                metrics["model/holdout_elites"] = float(result.errors[self.world_model.dynamics.elites.cpu()].mean())
        self.finite.settle()
        return metrics

    def model_frames(self, objective: Objective, replay: Any) -> tuple[TensorDictBase, TensorDictBase | None]:
        """What a fit learns from, and what it holds out if that is not any share of the first.

        All real transitions `[N]`; for an objective on sequences those of two separate parts, `[n, T]` each, T its
        length.
        """
        if objective.batch == "transitions" or objective.length == 1:
            return replay.frames().to(self.device), None
        length = objective.length or self.longest_rollout
        share = self.fit_options["holdout_ratio"], self.fit_options["max_holdout"]
        training, holdout = replay.split_sequences(length, *share)
        return training.to(self.device), holdout.to(self.device)

    def own_optimizer(self, name: str, groups: list[dict[str, Any]], lr: float) -> Adam:
        """An optimiser of what is not trained by rounds. Like theirs, its state goes on from a checkpoint's.

        Args:
            groups: parameters, and what is an option of theirs, which goes before the checkpoint's.
        """
        if name not in self._own_optimizers:
            optimizer = Adam(groups, lr=lr, fused=True)
            if name in self._saved_optimizers:
                optimizer.load_state_dict(self._saved_optimizers.pop(name))
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                group |= {option: value for option, value in own.items() if option != "params"}
                group["lr"] = lr
            self._own_optimizers[name] = optimizer
        return self._own_optimizers[name]

    def descend_own(self, name: str, optimizer: Adam, module: nn.Module, max_grad_norm: float | None = None) -> Descend:
        """A function that takes one step on a loss, if that is finite; compiled, where that is asked for.

        Args:
            name: of the loss, which is the same at every call.
            optimizer: of the trained parameters.
            module: has all that the loss reads besides the frames.
            max_grad_norm: clip the gradient to this norm.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        holder = SimpleNamespace(optimizer=optimizer)  # as Lightning's optimisers, which the check knows

        def descend(loss_of: Callable[[TensorDictBase], Tensor], frames: TensorDictBase, whole: bool) -> Tensor:
            loss = self._compiled_loss(name, loss_of, frames, module, parameters) if whole else None
            if loss is None:
                optimizer.zero_grad()
                loss = loss_of(frames)
                loss.backward(inputs=parameters)
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            gradients = [parameter.grad for parameter in parameters]
            if self.finite.passes(name, self.grad_steps, holder, loss, gradients, scaled=False):
                optimizer.step()
            return loss.detach()

        return descend

    def _compiled_loss(
        self,
        name: str,
        loss_of: Callable[[TensorDictBase], Tensor],
        frames: TensorDictBase,
        module: nn.Module,
        parameters: list[nn.Parameter],
    ) -> Tensor | None:
        """The loss, its gradients left in the parameters; None: it has to be computed eagerly."""
        if not (self._compile and self._compile_fits):
            return None
        if name not in self._compiled_losses:
            self._compiled_losses[name] = CompiledLoss(module, loss_of, parameters)
        try:
            return self._compiled_losses[name](frames)
        except CannotCompile as reason:
            self._compile_fits = False
            rank_zero_warn(f"model.compile: fits run eagerly, since {name}: {reason}")
            return None

    def tell(self, news: str) -> None:
        """Lets the callbacks know what is going on where no round ends for a while."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, ModelWorkListener):
                callback.on_model_work(self.trainer, self, news)

    def on_fit_start(self) -> None:
        """Forgets graphs of tensors that may have moved to another device since."""
        super().on_fit_start()
        self._compiled_losses = {}

    # ------------------------------------------------------------------ checkpoint
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimisers of the model."""
        super().on_save_checkpoint(checkpoint)
        own = {name: optimizer.state_dict() for name, optimizer in self._own_optimizers.items()}
        checkpoint["own_optimizers"] = self._saved_optimizers | own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them back when they are next used: the parameters have come to their device by then."""
        super().on_load_checkpoint(checkpoint)
        self._saved_optimizers = dict(checkpoint["own_optimizers"])


def _rows(state: Any, chosen: Tensor) -> Any:
    """Rows of a model's state: a tensor, or a (named) tuple of states."""
    return tree_map(lambda part: part[chosen], state)
