from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.models import EnsembleConfig, GradientStep, ModelLoss, RecurrentConfig, fit
from lit_mbrl.models.fitting import EarlyStopping, bootstrap, shuffled
from lit_mbrl.training.model_fit import ModelFitter
from lit_mbrl.utils.errors import TrainingError
from tests.helpers.frames import make_frames

E, O, A = 4, 3, 2  # noqa: E741


# ---------------------------------------------------------------------- the rule, on made-up curves
def stop_and_best(curves: list[list[float]], **options: Any) -> tuple[int, list[int], list[float]]:
    """The epoch after which training ends, each member's best epoch and its error; curves are per member."""
    best = EarlyStopping(len(curves), **options)
    for errors in zip(*curves, strict=True):
        best.update(torch.tensor(errors))
        if best.stop:
            break
    return best.epoch, best.epochs, best.errors.tolist()


def test_training_ends_when_no_member_improves_for_more_than_the_patience() -> None:
    flat = [1.0] * 20
    assert stop_and_best([flat]) == (7, [1], [1.0])  # the first epoch is the best, and six more are too many
    assert stop_and_best([flat], patience=0)[0] == 2
    late = [1.0] * 6 + [0.5] * 14  # improves in the last epoch before the end
    assert stop_and_best([flat, late]) == (13, [1, 7], [1.0, 0.5])


def test_an_improvement_is_more_than_a_percent_of_the_best() -> None:
    creeping = [1.0 * 0.995**k for k in range(40)]
    epochs, best, errors = stop_and_best([creeping])
    # 0.995^2 = 0.990025 is not below 0.99, 0.995^3 is: every third epoch counts, and the patience never ends.
    assert epochs == 40 and best == [40] and errors == pytest.approx([0.995**39])
    slower = [1.0 * 0.999**k for k in range(40)]  # eleven epochs for a percent
    assert stop_and_best([slower]) == (7, [1], [1.0])


def test_every_member_keeps_its_own_best_epoch() -> None:
    first, second = [3.0, 1.0, 2.0, 2.0, 0.5], [1.0, 4.0, 0.8, 5.0, 6.0]
    assert stop_and_best([first, second])[1:] == ([5, 3], pytest.approx([0.5, 0.8]))


def test_errors_that_are_not_finite_are_never_best() -> None:
    assert stop_and_best([[math.nan] * 9, [math.inf, 1.0, *[math.nan] * 7]])[1:] == ([0, 2], [math.inf, 1.0])


# ---------------------------------------------------------------------- the data
def test_bootstrap_draws_each_member_s_set_with_replacement() -> None:
    samples = bootstrap(E, 1000)
    assert samples.shape == (E, 1000) and samples.min() >= 0 and samples.max() < 1000
    for member in samples:  # 632 of 1000 are expected, with a standard deviation of 9.8
        assert 580 < len(member.unique()) < 685
    assert not torch.equal(samples[0].sort().values, samples[1].sort().values)
    assert torch.equal(bootstrap(1, 1000)[0].sort().values, torch.arange(1000))


def test_shuffling_keeps_each_member_s_set() -> None:
    samples = bootstrap(E, 1000)
    mixed = shuffled(samples)
    assert torch.equal(mixed.sort(1).values, samples.sort(1).values)
    moved = (mixed != samples).float().mean(1)
    assert (moved > 0.9).all()


class Recorder:
    """An objective of one weight per member that writes down which frames it sees, and whose errors are made up."""

    def __init__(self, curves: list[list[float]]) -> None:
        self.curves, self.epoch = torch.tensor(curves), 0
        self.weight = nn.Parameter(torch.zeros(len(curves), 1))
        self.seen: list[Tensor] = []
        self.held_out: list[Tensor] = []
        self.whole: list[bool] = []
        self.scaled: list[Tensor] = []
        self.ranked: list[Tensor] = []
        module = nn.Module()
        module.weight = self.weight
        self.objective = ModelLoss(
            "made_up",
            module,
            self.loss,
            lr=1.0,
            error=self.error,
            members=len(curves),
            member_loss=self.member_loss,
            member_parameters=[self.weight],
            before_fit=lambda frames: self.scaled.append(frames["number"]),
            after_fit=self.ranked.append,
        )

    def loss(self, frames: TensorDict) -> Tensor:
        raise AssertionError("members have a loss of their own")

    def member_loss(self, frames: TensorDict) -> Tensor:
        self.seen.append(frames["number"])
        return self.weight.sum(1)

    def error(self, frames: TensorDict) -> Tensor:
        self.held_out.append(frames["number"])
        self.epoch += 1
        return self.curves[:, self.epoch - 1]

    def fit(self, size: int, **options: Any) -> Any:
        frames = TensorDict({"number": torch.arange(size), "action": torch.zeros(size, A)}, [size])

        def count(loss_of: Any, frames: TensorDict, whole: bool) -> Tensor:  # the weight is the number of steps
            self.whole.append(whole)
            with torch.no_grad():
                self.weight += 1.0
            return loss_of(frames)

        return fit(self.objective, frames, count, **options)


def test_each_member_gets_its_best_weights_back() -> None:
    recorder = Recorder([[1.0] * 9, [9.0, 8.0, 0.5, *[1.0] * 6], [2.0, 1.0, 1.0, *[1.0] * 6]])
    result = recorder.fit(100, batch_size=10, max_epochs=9)  # 80 frames to train on: 8 steps per epoch
    assert result.best_epochs == [1, 3, 2] and result.epochs == 9 and result.steps == 72
    assert recorder.weight.flatten().tolist() == [8.0, 24.0, 16.0]
    (ranked,) = recorder.ranked
    assert ranked.tolist() == result.errors.tolist() == [1.0, 0.5, 1.0]


def test_holdout_is_a_fifth_at_most_5000_and_drawn_anew() -> None:
    for size, held in ((100, 20), (30_000, 5000), (3, 1), (2, 1)):
        recorder = Recorder([[1.0], [1.0]])
        recorder.fit(size, max_epochs=1)
        (out,), (training,) = recorder.held_out, recorder.scaled
        assert len(out) == held and len(training) == size - held
        assert torch.equal(torch.cat([out, training]).sort().values, torch.arange(size))
        assert not set(out.tolist()) & set(torch.cat([b.flatten() for b in recorder.seen]).tolist())
    first, second = Recorder([[1.0]]), Recorder([[1.0]])
    first.fit(1000, max_epochs=1), second.fit(1000, max_epochs=1)
    assert not torch.equal(first.held_out[0], second.held_out[0])


def test_an_epoch_is_every_member_s_set_once_in_a_new_order() -> None:
    recorder = Recorder([[1.0] * 3] * 2)
    recorder.fit(60, batch_size=20, max_epochs=3)  # 48 frames: batches of 20, 20 and 8
    assert [b.shape for b in recorder.seen] == [(2, 20), (2, 20), (2, 8)] * 3
    assert recorder.whole == [True, True, False] * 3
    epochs = [torch.cat(recorder.seen[k : k + 3], 1) for k in (0, 3, 6)]
    for later in epochs[1:]:
        assert torch.equal(later.sort(1).values, epochs[0].sort(1).values)
        assert not torch.equal(later, epochs[0])


def test_progress_is_told_of_every_epoch() -> None:
    heard: list[tuple[int, list[float]]] = []
    Recorder([[3.0, 2.0, 1.0]]).fit(10, max_epochs=3, on_epoch=lambda epoch, errors: heard.append((epoch, *errors)))
    assert heard == [(1, 3.0), (2, 2.0), (3, 1.0)]


# ---------------------------------------------------------------------- real models
def smooth_frames(*shape: int) -> TensorDict:
    """Transitions `[N]` or sequences `[N, T]` of a smooth system with small noise."""
    size, length = (*shape, 1)[:2]
    frames = make_frames(size, length, observation_dim=O, action_dim=A, terminated=0.0)
    for t in range(length):
        if t:
            frames["observation"][:, t] = frames["next", "observation"][:, t - 1]
        x, u = frames["observation"][:, t], frames["action"][:, t]
        noise = 0.02 * torch.randn(size, O)
        frames["next", "observation"][:, t] = x + 0.3 * torch.sin(x.roll(1, -1)) + 0.2 * u[:, :1] + noise
        frames["next", "reward"][:, t] = x[:, :1] * u[:, :1]
    return frames.reshape(*shape)


def stepper(objective: ModelLoss, optimizer: torch.optim.Optimizer) -> GradientStep:
    """Steps as fits take them, without an algorithm."""
    return ModelFitter().step(objective.name, optimizer, nn.Module(), objective.max_grad_norm)


def train(factory: Any, name: str, frames: TensorDict, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model = factory.build(O, A)
    (objective,) = [each for each in factory.objectives(model) if each.name == name]
    optimizer = torch.optim.Adam(objective.parameters(), lr=objective.lr)
    return model, fit(objective, frames, stepper(objective, optimizer), **options)


@pytest.mark.parametrize("probabilistic", [True, False])
def test_an_ensemble_learns_and_its_elites_are_the_best(probabilistic: bool) -> None:
    factory = EnsembleConfig(
        num_members=E, num_elites=2, hidden_sizes=[32, 32], probabilistic=probabilistic, propagation="mean", lr=1e-2
    )
    frames = smooth_frames(600)
    target = torch.cat([frames["next", "observation"] - frames["observation"], frames["next", "reward"]], -1)
    model, result = train(factory, "dynamics", frames, batch_size=64, max_epochs=40)
    assert (result.errors < 0.1 * target.var()).all()  # more than 90 % of the variance is explained
    assert model.dynamics.elites.tolist() == result.errors.argsort()[:2].tolist()
    assert model.dynamics.input_mean.any() and (model.dynamics.input_std != 1.0).all()
    if probabilistic:  # the noise of the observations is 0.02; hold-out errors of the reward are larger
        _, log_var = model.dynamics(frames["observation"], frames["action"])
        assert (0.5 * log_var[..., :O]).exp().mean() < 0.2


def test_a_fit_repeats_under_a_seed() -> None:
    factory, frames = EnsembleConfig(num_members=E, num_elites=2, hidden_sizes=[8]), smooth_frames(200)
    fits = [train(factory, "dynamics", frames, seed=seed, max_epochs=3) for seed in (1, 1, 2)]
    states = [model.state_dict() for model, _ in fits]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert fits[0][1].best_epochs == fits[1][1].best_epochs


@pytest.mark.parametrize("name", ["reward", "dynamics", "termination"])
def test_the_recurrent_model_fits_as_a_single_member(name: str) -> None:
    frames = smooth_frames(250, 2) if name == "dynamics" else smooth_frames(500)
    _, one = train(RecurrentConfig(hidden_size=16, lr=3e-3), name, frames, batch_size=32, max_epochs=1)
    _, many = train(RecurrentConfig(hidden_size=16, lr=3e-3), name, frames, batch_size=32, max_epochs=30)
    assert many.errors < 0.7 * one.errors
    if name == "termination":  # nothing ever terminates: the fit ends instead of chasing the last 0.01 %
        _, certain = train(RecurrentConfig(hidden_size=16, lr=3e-2), name, frames)
        assert certain.errors.item() == pytest.approx(1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    frames = smooth_frames(100)
    frames["next", "reward"][:] = torch.nan
    factory = EnsembleConfig(num_members=E, num_elites=2, hidden_sizes=[8])
    model = factory.build(O, A)
    before = [p.clone() for p in model.dynamics.parameters()]
    (objective,) = [each for each in factory.objectives(model) if each.name == "dynamics"]
    optimizer = torch.optim.Adam(objective.parameters())
    with pytest.raises(TrainingError, match="'dynamics' is not finite"):
        fit(objective, frames, stepper(objective, optimizer))
    assert all(torch.equal(p, q) for p, q in zip(model.dynamics.parameters(), before, strict=True))


def test_the_optimiser_goes_on_from_fit_to_fit() -> None:
    factory, frames = EnsembleConfig(num_members=E, num_elites=2, hidden_sizes=[8]), smooth_frames(100)
    model = factory.build(O, A)
    (objective,) = [each for each in factory.objectives(model) if each.name == "dynamics"]
    optimizer = torch.optim.Adam(objective.parameters())
    steps = sum(fit(objective, frames, stepper(objective, optimizer), max_epochs=2).steps for _ in range(2))
    assert {int(state["step"]) for state in optimizer.state.values()} == {steps} == {4}


def test_the_optimiser_s_weight_decay_is_that_of_the_loss() -> None:
    """A step of the fit, whose optimiser decays, beside one of plain descent on the loss that has the decay in it."""
    frames, lr = smooth_frames(20), 0.1
    factory = EnsembleConfig(num_members=E, num_elites=2, hidden_sizes=[8], weight_decay=[0.5, 2.0])
    torch.manual_seed(0)
    fitted, written = factory.build(O, A), factory.build(O, A)
    written.load_state_dict(fitted.state_dict())
    (objective,) = [each for each in factory.objectives(fitted) if each.name == "dynamics"]
    groups = objective.groups()
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.5, 2.0]
    assert {p for group in groups for p in group["params"]} == set(fitted.dynamics.parameters())
    drawn: list[TensorDict] = []
    loss = objective.member_loss

    def watched(batch: TensorDict) -> Tensor:
        drawn.append(batch)
        return loss(batch)

    objective = dataclasses.replace(objective, member_loss=watched)
    fit(objective, frames, stepper(objective, torch.optim.SGD(groups, lr=lr)), batch_size=20, max_epochs=1)
    written.dynamics.input_mean.copy_(fitted.dynamics.input_mean)
    written.dynamics.input_std.copy_(fitted.dynamics.input_std)
    written.dynamics.loss(drawn[0]).sum().backward()
    for moved, start in zip(fitted.dynamics.parameters(), written.dynamics.parameters(), strict=True):
        torch.testing.assert_close(moved.detach(), start.detach() - lr * start.grad)


def test_clipping_bounds_the_gradient() -> None:
    factory = RecurrentConfig(hidden_size=8, max_grad_norm=1e-3)
    model = factory.build(O, A)
    (objective,) = [each for each in factory.objectives(model) if each.name == "dynamics"]
    before = [p.clone() for p in objective.parameters()]
    descend = stepper(objective, torch.optim.SGD(objective.parameters(), lr=1.0))
    fit(objective, smooth_frames(20, 2), descend, max_epochs=1)
    moved = torch.cat([(p - q).flatten() for p, q in zip(objective.parameters(), before, strict=True)]).norm()
    assert 0 < moved <= 1e-3 + 1e-6  # one step of 16 sequences
