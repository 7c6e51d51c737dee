"""Natural gradient steps: their parts against dense linear algebra, their promises, and any step that searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.func import functional_call

from lit_mbrl.algorithms import DDPG
from lit_mbrl.networks import CategoricalActor, GaussianActor
from lit_mbrl.training.natural_gradient import NaturalGradient, conjugate_gradient, damped, fisher_product, flatten
from lit_mbrl.training.optim import SearchOptimizer
from lit_mbrl.training.update import Update
from lit_mbrl.utils.errors import OptionError, TrainingError
from tests.helpers.runs import SaveAndStop, Stop, everything, fit, make_data

FEATURES, ACTIONS, ROWS = 3, 2, 11
KINDS = [GaussianActor, CategoricalActor]


class Problem:
    """A batch for a policy: what it does there, and made-up advantages."""

    def __init__(self, kind: type[Any], dtype: torch.dtype = torch.float64, advantage: float = 1.0) -> None:
        torch.manual_seed(0)
        self.actor = kind(FEATURES, ACTIONS, [5]).to(dtype)
        for parameter in self.actor.parameters():
            nn.init.normal_(parameter, std=0.5)
        self.parameters = list(self.actor.parameters())
        self.features = torch.randn(ROWS, FEATURES, dtype=dtype)
        self.advantage = advantage * torch.randn(ROWS, 1, dtype=dtype)
        self.act()

    @torch.no_grad()
    def act(self) -> None:
        """From now on the policy as it is counts as the one that has acted."""
        self.action = self.actor.sample(self.features)
        self.acted = self.actor.distribution(self.features)
        self.log_prob, _ = self.actor.log_prob_entropy(self.features, self.action)

    def loss(self) -> Tensor:
        log_prob, _ = self.actor.log_prob_entropy(self.features, self.action)
        return -((log_prob - self.log_prob).exp() * self.advantage).mean()

    def divergence(self) -> Tensor:
        return self.actor.kl(self.acted, self.features).mean()

    def evaluate(self) -> tuple[Tensor, Tensor]:
        return self.loss(), self.divergence()

    def gradient(self) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        self.loss().backward()
        return flatten(parameter.grad for parameter in self.parameters)


def dense_hessian(problem: Problem) -> Tensor:
    """The Hessian of the mean divergence by `torch.autograd.functional`, `[n, n]`."""
    names = [name for name, _ in problem.actor.named_parameters()]
    sizes = [parameter.numel() for parameter in problem.parameters]

    class Divergence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor = problem.actor

        def forward(self) -> Tensor:
            return self.actor.kl(problem.acted, problem.features).mean()

    module = Divergence()

    def of_vector(vector: Tensor) -> Tensor:
        parts = [
            part.view_as(parameter) for part, parameter in zip(vector.split(sizes), problem.parameters, strict=True)
        ]
        return functional_call(module, {f"actor.{name}": part for name, part in zip(names, parts, strict=True)}, ())

    return torch.autograd.functional.hessian(of_vector, flatten(problem.parameters).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_products_are_the_hessian_s(kind: type[nn.Module]) -> None:
    problem = Problem(kind)
    product = fisher_product(problem.divergence(), problem.parameters)
    hessian = dense_hessian(problem)
    found = torch.stack([product(row) for row in torch.eye(len(hessian), dtype=torch.float64)])
    torch.testing.assert_close(found, hessian)
    assert hessian.abs().max() > 0.01 and torch.linalg.eigvalsh(hessian).min() > -1e-12
    torch.testing.assert_close(damped(product, 0.5)(hessian[0]), hessian @ hessian[0] + 0.5 * hessian[0])


def test_the_hessian_is_the_fisher_matrix() -> None:
    """Of a categorical policy: the mean over states of `sum_a p(a) grad log p(a) grad log p(a)'`."""
    problem = Problem(CategoricalActor)
    fisher = torch.zeros_like(dense_hessian(problem))
    for row in problem.features:
        log_probs = problem.actor.distribution(row)
        for log_prob in log_probs.unbind():
            gradient = flatten(torch.autograd.grad(log_prob, problem.parameters, retain_graph=True))
            fisher += log_prob.exp().detach() * torch.outer(gradient, gradient) / ROWS
    torch.testing.assert_close(fisher, dense_hessian(problem))


def test_conjugate_gradient_is_a_direct_solve() -> None:
    torch.manual_seed(0)
    root, target = torch.randn(12, 12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(12)
    solution = conjugate_gradient(lambda vector: matrix @ vector, target, 30, tolerance=1e-24)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target))
    calls: list[Tensor] = []

    def counted(vector: Tensor) -> Tensor:
        calls.append(vector)
        return matrix @ vector

    rough = conjugate_gradient(counted, target, 3)
    assert len(calls) == 3 and (matrix @ rough - target).norm() < target.norm()
    calls.clear()
    assert conjugate_gradient(counted, torch.zeros(12, dtype=torch.float64), 30).eq(0).all() and not calls


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_step_solves_the_quadratic_problem(kind: type[nn.Module]) -> None:
    """`g.step` is the most that steps with `step' (F + eps) step / 2 = delta` can have."""
    problem = Problem(kind)
    gradient = problem.gradient()
    optimizer = NaturalGradient(problem.parameters, eps=0.05, max_kl=0.02, cg_iterations=200)
    optimizer.set_direction(problem.divergence)
    step = flatten(parameter.grad for parameter in problem.parameters)
    matrix = dense_hessian(problem) + 0.05 * torch.eye(len(step))
    torch.testing.assert_close(0.5 * step @ matrix @ step, torch.tensor(0.02, dtype=torch.float64), rtol=1e-5, atol=0)
    best = (2 * 0.02 * gradient @ torch.linalg.solve(matrix, gradient)).sqrt()
    torch.testing.assert_close(gradient @ step, best, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_keeps_its_bound_and_lowers_the_loss(kind: type[nn.Module], dtype: torch.dtype) -> None:
    problem = Problem(kind, dtype)
    optimizer, accepted = NaturalGradient(problem.parameters, eps=1e-3, max_kl=0.03), 0.0
    for _ in range(20):
        problem.act()
        before, _ = problem.gradient(), optimizer.set_direction(problem.divergence)
        loss = problem.loss().detach()
        found = optimizer.search(loss, problem.evaluate)
        new_loss, kl = (value.item() for value in problem.evaluate())
        assert kl <= 0.03 and (kl, loss.item() - new_loss) == pytest.approx((found["kl"], found["improvement"]))
        assert (new_loss < loss.item()) == (found["accepted"] == 1.0)
        assert before.norm() > 0 and 1 <= found["line_search_steps"] <= 10
        accepted += found["accepted"]
    assert accepted >= 15


Evaluate = Callable[[Problem, Tensor], tuple[Tensor, Tensor]]
WORSE: dict[str, Evaluate] = {
    "higher": lambda problem, loss: (loss + 1e-3, torch.tensor(0.0)),
    "as high": lambda problem, loss: (loss, torch.tensor(0.0)),
    "too far": lambda problem, loss: (loss - 1.0, torch.tensor(0.0101)),
    "not finite": lambda problem, loss: (torch.tensor(torch.nan), torch.tensor(0.0)),
    "nowhere": lambda problem, loss: (loss - 1.0, torch.tensor(torch.nan)),
}


@pytest.mark.parametrize("worse", WORSE)
def test_a_worse_step_is_refused_and_parameters_come_back_exactly(worse: str) -> None:
    problem = Problem(GaussianActor, torch.float32)
    problem.gradient()
    before = [parameter.clone() for parameter in problem.parameters]
    optimizer = NaturalGradient(problem.parameters, max_kl=0.01, max_tries=7)
    optimizer.set_direction(problem.divergence)
    loss, tried = problem.loss().detach(), []

    def evaluate() -> tuple[Tensor, Tensor]:
        tried.append(flatten(problem.parameters).detach().clone())
        return WORSE[worse](problem, loss)

    found = optimizer.search(loss, evaluate)
    assert all(torch.equal(old, parameter) for old, parameter in zip(before, problem.parameters, strict=True))
    assert (found["accepted"], found["line_search_steps"], found["kl"], found["improvement"]) == (0, 7, 0, 0)
    # Each try is 0.8 times as far as the one before, and all of them lie on one line.
    steps = torch.stack(tried) - flatten(before)
    for index, step in enumerate(steps):
        torch.testing.assert_close(step, 0.8**index * steps[0], rtol=1e-3, atol=1e-6)


def test_the_line_search_takes_the_first_that_is_good() -> None:
    problem = Problem(GaussianActor)
    problem.gradient()
    start = flatten(problem.parameters).detach().clone()
    optimizer = NaturalGradient(problem.parameters, lr=0.5)
    optimizer.set_direction(problem.divergence)
    full, answers = flatten(parameter.grad for parameter in problem.parameters), iter([2.0, 2.0, -1.0])
    found = optimizer.search(torch.tensor(0.0), lambda: (torch.tensor(next(answers)), torch.tensor(0.005)))
    assert (found["accepted"], found["line_search_steps"], found["improvement"]) == (1, 3, 1)
    torch.testing.assert_close(flatten(problem.parameters).detach(), start - 0.5 * 0.8**2 * full)


def test_no_gradient_is_no_step() -> None:
    problem = Problem(GaussianActor, torch.float32, advantage=0.0)
    assert problem.gradient().eq(0).all()
    before = flatten(problem.parameters).detach().clone()
    optimizer = NaturalGradient(problem.parameters)
    optimizer.set_direction(problem.divergence)
    assert optimizer.search(problem.loss().detach(), problem.evaluate)["accepted"] == 0
    assert torch.equal(flatten(problem.parameters), before)


# ---------------------------------------------------------------------- in training steps
class Halving(SearchOptimizer):
    """Gradient descent that halves its step until the loss falls."""

    def __init__(self, parameters: Any, lr: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def search(self, loss: Tensor, evaluate: Callable[[], tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        before, scale = [parameter.clone() for parameter in self.parameters()], self.param_groups[0]["lr"]
        for tries in range(1, 31):
            for parameter, old in zip(self.parameters(), before, strict=True):
                parameter.copy_(old - scale * parameter.grad)
            new_loss, divergence = evaluate()
            assert divergence is None
            if new_loss < loss:
                return {"tries": float(tries), "improvement": float(loss - new_loss)}
            scale *= 0.5
        for parameter, old in zip(self.parameters(), before, strict=True):
            parameter.copy_(old)
        return {"tries": 30.0, "improvement": 0.0}


class Searching(DDPG):
    """DDPG whose critic takes steps of a kind of its own, with other steps beside them."""

    def __init__(self, step: Any = Halving, spoil: int | None = None, **kwargs: Any) -> None:
        super().__init__(hidden_sizes=[8], critic_lr=4.0, **kwargs)
        self.step, self.spoil, self.found = step, spoil, []

    def updates(self) -> Iterator[Update]:
        for update in super().updates():
            yield replace(update, step=self.step) if update.name == "critic" else update

    def critic_loss(self, batch: TensorDictBase) -> Any:
        loss = super().critic_loss(batch)
        return loss * torch.nan if self.spoil == self.train_steps else loss

    def note(self, metrics: dict[str, float]) -> None:
        self.found.append(metrics)
        super().note(metrics)


def test_any_step_may_search() -> None:
    """Every step lowers the loss of its own batch; both updates are counted; resumed exactly in the middle."""
    algorithm, data = Searching(), make_data()
    trainer = fit(algorithm, data)
    assert len(algorithm.found) == 36 and trainer.global_step == 72
    assert all(found["critic/improvement"] > 0 for found in algorithm.found)
    assert max(found["critic/tries"] for found in algorithm.found) > 1


def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    whole_data, path = make_data(), tmp_path / "a.ckpt"
    whole = Searching()
    fit(whole, whole_data)
    with pytest.raises(Stop):
        fit(Searching(), make_data(), SaveAndStop(path, 9))
    resumed, data = Searching(), make_data()
    fit(resumed, data, ckpt_path=path, seed=1234)
    ours, theirs = everything(resumed, data), everything(whole, whole_data)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key].float(), theirs[key].float()) for key in theirs)


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    with pytest.raises(TrainingError, match="the loss or the gradient of 'critic' is not finite in training step 3"):
        fit(Searching(spoil=3), make_data())
    algorithm = Searching(spoil=3)
    algorithm.finite.action = "skip"
    fit(algorithm, make_data())
    assert algorithm.finite.skipped == {"critic": 1} and len(algorithm.found) == 35


def test_compiled_training_steps_are_refused_in_one_line() -> None:
    with pytest.warns(UserWarning, match="since the optimiser of 'critic' is not one plain lit_mbrl.training.optim.Ad"):
        fit(Searching(compile=True), make_data())


def test_scaled_losses_are_refused_in_one_line() -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(
        OptionError, match="trainer.precision=16-mixed: expected 32-true or bf16-mixed: Searching's cri"
    ):
        fit(Searching(), make_data(), plugins=[plugin])
    with pytest.raises(OptionError, match="trainer.precision"):  # also by way of `partial`
        fit(Searching(step=partial(Halving)), make_data(), plugins=[plugin])


def test_a_natural_gradient_needs_a_divergence() -> None:
    with pytest.raises(ValueError, match="needs the update's `divergence`"):
        fit(Searching(step=partial(NaturalGradient, max_kl=0.01)), make_data())


class Resting(DDPG):
    """Every third training step has nothing to learn from."""

    def sample(self, data: Any) -> dict[str, Any]:
        return {"transitions": None} if data.train_steps % 3 == 0 else super().sample(data)


def test_a_training_step_may_have_no_batch() -> None:
    trainer = fit(Resting(hidden_sizes=[8]), make_data())
    assert trainer.global_step == 2 * 24  # two updates in 24 of the 36 training steps


@pytest.mark.parametrize("spoilt", [0, 7])
def test_a_direction_that_is_not_finite_is_noticed(spoilt: int) -> None:
    """By the check of what `set_direction` leaves: NaN in one product of conjugate gradient is NaN in all of it."""
    problem = Problem(GaussianActor)
    problem.gradient()
    optimizer = NaturalGradient(problem.parameters)
    flat = flatten(problem.parameters)

    def divergence() -> Tensor:
        return problem.divergence() + torch.nan * flatten(problem.parameters)[spoilt].square()

    optimizer.set_direction(divergence)
    assert flat.isfinite().all() and flatten(p.grad for p in problem.parameters).isnan().any()
