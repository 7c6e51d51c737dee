"""Training of a world model to all data at once, until its hold-out error no longer falls (MBPO's way).

MBPO is Janner et al. 2019 (arXiv 1906.08253v3); the paper says no more than "maximum likelihood", the rest is its
public code's: the hold-out is drawn anew each time, every member has its own bootstrap sample, and each keeps the
weights of its best epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from lit_mbrl.models.base import ModelLoss
from lit_mbrl.utils import distributed

# Takes a gradient step on a loss of frames, and returns it. True: the batch has the size of all but an epoch's last.
GradientStep = Callable[[Callable[[TensorDictBase], Tensor], TensorDictBase, bool], Tensor]


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        epochs: passes over the data.
        steps: gradient steps.
        errors: each member's hold-out error `[E]` with the weights that it has kept.
        best_epochs: the epochs, from 1, that those weights are from; 0: no epoch was finite.
    """

    epochs: int
    steps: int
    errors: Tensor
    best_epochs: list[int]


class EarlyStopping:
    """Each member's best epoch so far, and whether it is time to stop.

    An epoch counts as better if it lowers the member's error by more than a fraction `improvement` of its best. The
    time to stop has come when no member has found a better epoch for more than `patience` epochs.

    Args:
        members: number `E` of members.
    """

    def __init__(self, members: int, improvement: float = 0.01, patience: int = 5) -> None:
        self.improvement, self.patience = improvement, patience
        self.errors = torch.full((members,), torch.inf)
        self.epochs = [0] * members
        self.epoch = 0
        self._since = 0

    def update(self, errors: Tensor) -> list[int]:
        """Takes the hold-out errors `[E]` of one more epoch; returns the members for which it is the best so far."""
        self.epoch += 1
        errors = errors.to(self.errors)
        better = errors < self.errors * (1.0 - self.improvement)
        self.errors = torch.where(better, errors, self.errors)
        members = better.nonzero().flatten().tolist()
        for member in members:
            self.epochs[member] = self.epoch
        self._since = 0 if members else self._since + 1
        return members

    @property
    def stop(self) -> bool:
        """Returns whether more than `patience` epochs have passed without a better one."""
        return self._since > self.patience


def fit(
    objective: ModelLoss,
    frames: TensorDictBase,
    gradient_step: GradientStep,
    *,
    batch_size: int = 256,
    holdout_ratio: float = 0.2,
    max_holdout: int = 5000,
    improvement: float = 0.01,
    patience: int = 5,
    max_epochs: int | None = None,
    holdout: TensorDictBase | None = None,
    on_epoch: Callable[[int, Tensor], None] | None = None,
) -> FitResult:
    """Trains one objective of a world model on all frames, with MBPO's numbers by default.

    Random numbers are torch's. On several devices each rank has its own frames and takes the same number of batches;
    hold-out errors are means over the ranks, and so all stop together.

    Args:
        objective: what is trained: vectorised members, or a single one.
        frames: `[N]` transitions or `[N, T]` sequences, as `objective.batch` says, N >= 2; on the model's device.
        gradient_step: takes a gradient step on a scalar loss of a batch (`training.model_fit.ModelFitter.step`), with
            an optimiser of `objective.groups()` that goes on from fit to fit, as the weights do.
        batch_size: frames per member and step.
        holdout_ratio: fraction held out, at least one frame and at most `max_holdout`.
        improvement: see `EarlyStopping`.
        patience: see `EarlyStopping`.
        max_epochs: stop after so many at the latest.
        holdout: frames to hold out instead of a fraction of the others, which should not overlap (sequences do).
        on_epoch: takes the number of the epoch, from 1, and its hold-out errors `[E]`.
    """
    assert len(frames) >= (2 if holdout is None else 1), "a fit needs a frame to learn from and one to hold out"
    device = frames["action"].device
    training = frames
    if holdout is None:
        num_holdout = max(1, min(int(len(frames) * holdout_ratio), max_holdout))
        order = torch.randperm(len(frames), device=device)
        holdout, training = frames[order[:num_holdout]], frames[order[num_holdout:]]
    if objective.before_fit is not None:
        objective.before_fit(training)
    samples = bootstrap(objective.members, len(training), device)
    num_batches = min(distributed.gather(-(-len(training) // batch_size)))
    best, kept = EarlyStopping(objective.members, improvement, patience), BestWeights(objective)
    while not best.stop and (max_epochs is None or best.epoch < max_epochs):
        for chosen in samples.split(batch_size, dim=1)[:num_batches]:
            single = objective.member_loss is None
            gradient_step(objective.fit_loss, training[chosen[0] if single else chosen], chosen.shape[1] == batch_size)
        samples = shuffled(samples)
        errors = holdout_errors(objective, holdout)
        kept.keep(best.update(errors))
        if on_epoch is not None:
            on_epoch(best.epoch, errors)
    kept.restore()
    if objective.after_fit is not None:
        objective.after_fit(best.errors)
    return FitResult(best.epoch, best.epoch * num_batches, best.errors, best.epochs)


def fit_epochs(
    objective: ModelLoss,
    frames: TensorDictBase,
    gradient_step: GradientStep,
    *,
    epochs: int = 5,
    batch_size: int = 32,
    on_epoch: Callable[[int, Tensor], None] | None = None,
) -> int:
    """Trains one objective for so many passes over all frames, nothing held out: PETS' way (arXiv 1805.12114).

    Args:
        frames: `[N]` transitions, N >= 1, on the model's device.
        gradient_step: see `fit`.
        on_epoch: takes the number of the pass, from 1, and its mean loss.

    Returns:
        The gradient steps taken.
    """
    if objective.before_fit is not None:
        objective.before_fit(frames)
    samples, single = bootstrap(objective.members, len(frames), frames["action"].device), objective.member_loss is None
    batches = -(-len(frames) // batch_size)
    for epoch in range(1, epochs + 1):
        losses = [
            gradient_step(objective.fit_loss, frames[chosen[0] if single else chosen], chosen.shape[1] == batch_size)
            for chosen in samples.split(batch_size, dim=1)
        ]
        samples = shuffled(samples)
        if on_epoch is not None:
            on_epoch(epoch, torch.stack(losses).mean())
    return epochs * batches


def bootstrap(members: int, size: int, device: torch.device | None = None) -> Tensor:
    """Indices `[E, size]` of each member's data: drawn with replacement, and all of them for a single member."""
    if members == 1:
        return torch.randperm(size, device=device).unsqueeze(0)
    return torch.randint(size, (members, size), device=device)


def shuffled(samples: Tensor) -> Tensor:
    """Every row `[E, N]` in a new order of its own."""
    return samples.gather(1, torch.rand(samples.shape, device=samples.device).argsort(1))


@torch.no_grad()
def holdout_errors(objective: ModelLoss, frames: TensorDictBase) -> Tensor:
    """The members' errors `[E]` on the CPU, means over the ranks."""
    errors = objective.error(frames).float().cpu()
    distributed.average_([errors])
    return errors


class BestWeights:
    """Keeps the weights of each member's best epoch. What the members share stays as it is."""

    def __init__(self, objective: ModelLoss) -> None:
        self._parameters = objective.member_parameters or objective.parameters()
        self._alone = not objective.member_parameters
        self._kept: dict[int, list[Tensor]] = {}

    def keep(self, members: list[int]) -> None:
        for member in members:
            self._kept[member] = [self._of(parameter, member).clone() for parameter in self._parameters]

    def restore(self) -> None:
        for member, weights in self._kept.items():
            for parameter, weight in zip(self._parameters, weights, strict=True):
                self._of(parameter, member).copy_(weight)

    def _of(self, parameter: nn.Parameter, member: int) -> Tensor:
        return parameter.detach() if self._alone else parameter.detach()[member]
