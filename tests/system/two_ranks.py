"""Runs in the two processes of `tests/system/test_devices.py`: callbacks for the command line, checks as a program."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.algorithms import DDPG, PPO, TRPO, Algorithm, MaxEntPPO
from lit_mbrl.data import OffPolicy, OnPolicy
from lit_mbrl.networks import GaussianActor
from lit_mbrl.training.ddp import ManualDDPStrategy
from lit_mbrl.training.natural_gradient import NaturalGradient, flatten
from lit_mbrl.utils import distributed
from lit_mbrl.utils.errors import TrainingError
from tests.helpers.frames import ALGORITHMS, make_frames
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data, make_rollouts


class SignalOneRank(Callback):
    """Sends a signal to one rank, at the end of a round, before `GracefulStop` looks."""

    def __init__(self, rank: int, round: int) -> None:
        self.rank, self.round = rank, round

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == self.round and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGINT)


class FailOneRank(Callback):
    """One rank raises, at the end of a round."""

    def __init__(self, rank: int, round: int) -> None:
        self.rank, self.round = rank, round

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if pl_module.train_steps == self.round and trainer.global_rank == self.rank:
            raise TrainingError("this one alone has failed")


class Dump(Callback):
    """Writes what this rank has after its last round of all."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = everything(pl_module, trainer.datamodule)
        torch.save(found, Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.pt")


class GradientsOfAll(Callback):
    """The gradients of half a batch per rank are, after the backward pass, those of the whole batch on one device."""

    def __init__(self) -> None:
        self.seen = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: DDPG, *args: Any) -> None:
        if self.seen:
            return
        with torch.random.fork_rng():
            torch.manual_seed(3)
            whole = make_frames(16, action_dim=1)
        own = whole[:8] if distributed.rank() == 0 else whole[8:]
        parameters = list(pl_module.critic.parameters())
        expected = torch.autograd.grad(pl_module.critic_loss(whole), parameters)
        pl_module.manual_backward(pl_module.critic_loss(own), inputs=parameters)
        found = [parameter.grad for parameter in parameters]
        assert not torch.equal(found[0], torch.autograd.grad(pl_module.critic_loss(own), parameters)[0])
        torch.testing.assert_close(found, list(expected))
        assert all(same_everywhere(gradient) for gradient in found)
        assert all(parameter.grad is None for parameter in pl_module.actor.parameters())
        self.seen = True


def same_everywhere(tensor: torch.Tensor) -> bool:
    """Whether all ranks have the same bits."""
    return all(torch.equal(tensor, other) for other in distributed.gather(tensor.detach()))


def two(
    algorithm: Algorithm, data: OffPolicy | OnPolicy, *callbacks: Callback, **options: Any
) -> dict[str, torch.Tensor]:
    """Trains on two devices. Returns what this rank has in the end."""
    algorithm.normalize_observations = True
    fit(algorithm, data, *callbacks, strategy=ManualDDPStrategy(), devices=2, **options)
    return everything(algorithm, data)


def check_messages() -> None:
    """The messages between ranks say what their names say."""
    rank = distributed.rank()
    assert distributed.gather(("a", rank)) == [("a", 0), ("a", 1)]
    assert distributed.gather_on_zero(rank) == ([0, 1] if rank == 0 else None)
    assert distributed.broadcast(rank if rank == 0 else None) == 0
    assert distributed.any_of(rank == 1) and not distributed.any_of(False)
    assert distributed.gather_rows(torch.full((2, 3), float(rank)))[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    first, second = torch.tensor([[1.0 + rank]]), torch.tensor(4.0 * rank)
    distributed.average_([first, second])
    assert (first.item(), second.item()) == (1.5, 2.0)


def check_equal_and_apart(found: dict[str, torch.Tensor], data: OffPolicy) -> None:
    """Weights, statistics and optimisers are the same on both ranks; data and random numbers are not."""
    for key, value in found.items():
        if key.startswith(("module.", "optimizer.")) and "extra_state" not in key:
            assert same_everywhere(value), key
    for key in ("replay.observation", "replay.action", "random"):
        assert not same_everywhere(found[key]), key
    # 60 frames of both ranks together, of which 24 are warm-up; one update per frame.
    assert (data.env_steps, data.train_steps, len(data.replay)) == (60, 36, 30)


def check_resume(name: str, folder: Path) -> None:
    """Stopped and resumed is the uninterrupted run, on both ranks, with other seeds at the second start."""
    whole_data = make_data()
    algorithm = ALGORITHMS[name]()
    watch = [GradientsOfAll()] if name == "ddpg" else []
    whole = two(algorithm, whole_data, *watch)
    assert all(callback.seen for callback in watch)
    check_equal_and_apart(whole, whole_data)
    if algorithm.normalizer is not None:
        assert algorithm.normalizer.count == 60
        own = whole["replay.observation"].double()
        mean = torch.cat(distributed.gather(own)).mean(0)
        torch.testing.assert_close(algorithm.normalizer.mean, mean)
    path = folder / f"{name}.ckpt"
    try:
        two(ALGORITHMS[name](), make_data(), SaveAndStop(path, 9))
    except Stop:
        pass
    else:
        raise AssertionError("the run was not stopped")
    resumed = two(ALGORITHMS[name](), make_data(), ckpt_path=path, seed=12345)
    assert whole.keys() == resumed.keys()
    different = [key for key in whole if not torch.equal(whole[key].float(), resumed[key].float())]
    assert not different, different


def check_rollouts(make: Callable[[], PPO | TRPO], folder: Path) -> None:
    """Each rank its rollouts, equal steps; stopped in the middle of an epoch and resumed is the uninterrupted run."""
    algorithm, data = make(), make_rollouts("Pendulum-v1", total_frames=80)
    whole = two(algorithm, data)
    for key, value in whole.items():
        if key.startswith(("module.", "optimizer.")) and "extra_state" not in key:
            assert same_everywhere(value), key
    for key in ("rollout.observation", "rollout.order", "random", "module.reward_normalizer._extra_state"):
        assert not same_everywhere(whole[key]), key
    # Two rollouts of 20 frames on each rank; two epochs of ten minibatches of four, two on each rank.
    assert (data.env_steps, data.train_steps) == (80, 40)
    assert algorithm.normalizer.count == algorithm.reward_normalizer.count == 80
    path = folder / f"{type(algorithm).__name__}.ckpt"
    try:
        two(make(), make_rollouts("Pendulum-v1", total_frames=80), SaveAndStop(path, 13))
    except Stop:
        pass
    else:
        raise AssertionError("the run was not stopped")
    resumed = two(make(), make_rollouts("Pendulum-v1", total_frames=80), ckpt_path=path, seed=12345)
    assert whole.keys() == resumed.keys()
    different = [key for key in whole if not torch.equal(whole[key].float(), resumed[key].float())]
    assert not different, different


def check_natural_gradient() -> None:
    """From half the rows on each rank comes the step of all rows on one, and the same bits on both."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        actor, features = GaussianActor(3, 2, [5]).double(), torch.randn(16, 3, dtype=torch.float64)
        weights = torch.randn(16, 2, dtype=torch.float64)
    parameters, acted = list(actor.parameters()), actor.distribution(features).detach()

    def full_step(rows: slice) -> torch.Tensor:
        loss = (actor.mean(features[rows]) * weights[rows]).mean() + actor.log_std.sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient.contiguous().clone()
        distributed.average_([parameter.grad for parameter in parameters])
        NaturalGradient(parameters).set_direction(lambda: actor.kl(acted[rows], features[rows]).mean())
        return flatten(parameter.grad for parameter in parameters)

    own = full_step(slice(0, 8) if distributed.rank() == 0 else slice(8, 16))
    assert same_everywhere(own) and own.abs().max() > 1e-3
    torch.testing.assert_close(own, full_step(slice(0, 16)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_resume("ddpg", Path(sys.argv[1]))  # noise of running episodes, too
    check_messages()
    check_resume("sac_svg_code", Path(sys.argv[1]))  # sequences, repeated updates, clipping
    check_rollouts(lambda: MaxEntPPO(hidden_sizes=[8], scale_rewards=True, target_kl=1e-3), Path(sys.argv[1]))
    check_rollouts(lambda: TRPO(hidden_sizes=[8], scale_rewards=True), Path(sys.argv[1]))
    check_natural_gradient()
    print(f"rank {distributed.rank()} agrees")
