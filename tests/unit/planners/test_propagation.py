"""How uncertainty travels: two members that contradict each other, moments against Monte Carlo, returns, memory."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_mbrl.models import TaskEnsemble
from lit_mbrl.planners.propagation import TrajectorySampler, check_particles, mixture_moments, open_loop
from lit_mbrl.utils.errors import OptionError
from tests.helpers.planning import contradicting

H, P = 6, 400


def paths(propagation: str, particles: int = P, std: float = 1e-3) -> Tensor:
    """The particles of one trajectory from 0, `[P, H + 1]`."""
    torch.manual_seed(0)
    sampler = TrajectorySampler(contradicting(std), propagation, particles)
    return sampler.trajectories(torch.zeros(1, 1), torch.zeros(1, H, 1), open_loop, H)[0, :, :, 0]


def test_ts_inf_keeps_its_member() -> None:
    """Half of the particles go up in every step, the other half down."""
    seen = paths("TSinf")
    up = torch.arange(H + 1.0).expand(P // 2, -1)
    torch.testing.assert_close(seen, torch.cat([up, -up]), atol=0.02, rtol=0)


def test_ts_1_draws_its_member_anew() -> None:
    """Each step is up or down, for half of the particles each, whatever the steps before were."""
    steps = paths("TS1").diff(dim=1)
    assert ((steps.abs() - 1).abs() < 0.01).all()
    assert (steps > 0).sum(0).tolist() == [P // 2] * H
    correlation = torch.corrcoef(steps.T) - torch.eye(H)
    assert correlation.abs().max() < 5 / P**0.5
    # A walk of independent steps: variance t, where a particle that keeps its member has t^2.
    assert paths("TS1")[:, -1].var().item() == pytest.approx(H, rel=0.3)
    assert paths("TSinf")[:, -1].var().item() == pytest.approx(H**2, rel=0.01)


def test_ds_is_normal_around_each_particle() -> None:
    """Both members together have mean 0 and variance 1 at every particle."""
    steps = paths("DS", 4000, 0.5).diff(dim=1)
    assert steps.mean(0).abs().max() < 0.1
    assert (steps.var(0) - 1.25).abs().max() < 0.15  # 1 between the members, 0.5^2 within
    kurtosis = (steps / steps.std()).pow(4).mean()
    assert kurtosis.item() == pytest.approx(3.0, abs=0.3)  # that of two peaks would be 1.6 here


def test_e_is_the_mean() -> None:
    torch.testing.assert_close(paths("E", 1), torch.zeros(1, H + 1))


@pytest.mark.parametrize("propagation", ["DS", "MM"])
def test_one_member_and_no_noise_is_the_mean(propagation: str) -> None:
    sampler = TrajectorySampler(contradicting(1e-6, members=1), propagation, 3)
    seen = sampler.trajectories(torch.zeros(1, 1), torch.zeros(1, H, 1), open_loop, H)
    torch.testing.assert_close(seen[0, :, :, 0], torch.arange(H + 1.0).expand(3, -1), atol=1e-4, rtol=0)


def test_mm_s_moments_are_those_of_monte_carlo() -> None:
    """One step from scattered particles, moved by random networks: moments over members and particles together."""
    torch.manual_seed(0)
    dynamics, particles = TaskEnsemble(3, 2, None, True, 4, [16]), 20_000
    with torch.no_grad():
        for weight in dynamics.networks.weights:
            weight.mul_(4.0)
    x = (torch.randn(1, 1, particles, 3) * torch.tensor([1.0, 0.3, 2.0])).clone()
    u = torch.tensor([0.5, -1.0]).expand(1, 1, particles, 2)
    matched, reward = TrajectorySampler(dynamics, "MM", particles).step(x, u)
    mean, log_var = dynamics(x.flatten(0, 2), u.flatten(0, 2))
    drawn = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    following, rewards = dynamics.advance(x.flatten(0, 2), drawn)
    for ours, theirs in ((matched[0, 0], following.flatten(0, 1)), (reward[0, 0], rewards.flatten(0, 1))):
        scale = theirs.std(0)
        assert ((ours.mean(0) - theirs.mean(0)) / scale).abs().max() < 0.03
        assert (ours.var(0) / theirs.var(0) - 1).abs().max() < 0.05
    # Matched particles are normal and independent of where they come from.
    assert torch.corrcoef(torch.stack([matched[0, 0, :, 0], x[0, 0, :, 0]]))[0, 1].abs() < 0.03


def test_moments_of_a_mixture_by_hand() -> None:
    mean, variance = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.5])
    assert [value.item() for value in mixture_moments(mean, variance, 0)] == [2.0, 2.0]  # 1 within, 1 between


# ---------------------------------------------------------------------- returns
def reward(x: Tensor, u: Tensor, following: Tensor) -> Tensor:
    return following + 10 * u


def make(propagation: str, particles: int, **options: Any) -> TrajectorySampler:
    return TrajectorySampler(contradicting(1e-4, predict_reward=False), propagation, particles, reward, **options)


@pytest.mark.parametrize(("propagation", "particles"), [("TSinf", 4), ("TS1", 4), ("DS", 4000), ("MM", 4000), ("E", 1)])
def test_returns_are_sums_over_steps_and_means_over_particles(propagation: str, particles: int) -> None:
    """Up and down cancel out; what is left are starts and actions: sum_t (x_0 + 10 u_t)."""
    torch.manual_seed(0)
    start, plans = torch.tensor([[0.5], [-2.0]]), torch.rand(2, 3, H, 1)
    found = make(propagation, particles).returns(start, plans, open_loop, H)
    torch.testing.assert_close(found, H * start + 10 * plans.sum((2, 3)), atol=0.5, rtol=0)
    assert found.shape == (2, 3)


def test_nothing_is_earned_after_a_termination() -> None:
    """Particles that go up end at 3, those that go down never."""
    sampler = make("TSinf", 2, terminated=lambda x, u, following: following > 2.5)
    found = sampler.returns(torch.zeros(1, 1), torch.zeros(1, 1, H, 1), open_loop, H)
    up, down = 1 + 2 + 3, -sum(range(1, H + 1))
    assert found.item() == pytest.approx((up + down) / 2, abs=0.01)


def test_a_terminated_particle_stays_so_under_another_member() -> None:
    """In TS1 the flags travel with the particles: after the first step all have terminated, whoever moves them."""
    sampler = make("TS1", 4, terminated=lambda x, u, following: torch.ones_like(following, dtype=torch.bool))
    found = sampler.returns(torch.full((1, 1), 7.0), torch.zeros(1, 1, H, 1), open_loop, H)
    assert found.item() == pytest.approx(7.0, abs=0.01)


def test_pieces_are_the_whole() -> None:
    start, plans = torch.randn(3, 1), torch.rand(3, 5, H, 1)
    whole = make("E", 1).returns(start, plans, open_loop, H)
    for chunk in (1, 4, 7):
        torch.testing.assert_close(make("E", 1, chunk=chunk).returns(start, plans, open_loop, H), whole)


class Live(TorchDispatchMode):
    """Measures the most bytes that results of operations take at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage.data_ptr() not in self.seen:
                    self.seen.add(storage.data_ptr())
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, storage.data_ptr(), storage.nbytes())
        return result

    def _freed(self, pointer: int, size: int) -> None:
        self.now -= size
        self.seen.discard(pointer)


@pytest.mark.parametrize("propagation", ["TSinf", "TS1"])
def test_memory_does_not_grow_with_the_horizon_nor_beyond_the_chunk(propagation: str) -> None:
    """A population of 500 with 20 particles each, on observations of 18 numbers, 30 steps ahead."""
    dynamics, plans = TaskEnsemble(18, 6, None, True, 5, [16]), torch.rand(1, 500, 1, 6)

    def peak(horizon: int, chunk: int) -> int:
        with Live() as live:
            sampler = TrajectorySampler(dynamics, propagation, 20, chunk=chunk)
            sampler.returns(torch.randn(1, 18), plans, lambda plans, x, step: plans[:, 0, None], horizon)
        return live.peak

    short, long, pieces = peak(2, 10_000), peak(30, 10_000), peak(30, 1_000)
    assert long <= 1.05 * short
    assert pieces < 0.25 * long


@pytest.mark.parametrize(
    ("propagation", "particles", "line"),
    [
        ("TSinf", 7, "--model.particles=7: expected a multiple of model.num_members=5 with model.propagation=TSinf"),
        ("TS1", 0, "--model.particles=0: expected a multiple"),
        ("MM", 1, "--model.particles=1: expected an integer >= 2"),
        ("DS", 0, "--model.particles=0: expected an integer >= 1"),
        ("E", 2, "--model.particles=2: expected 1, or null, with model.propagation=E"),
        ("TS2", 5, "--model.propagation=TS2: expected TSinf, TS1, DS, MM or E"),
    ],
)
def test_mistakes(propagation: str, particles: int, line: str) -> None:
    with pytest.raises(OptionError, match=line):
        check_particles(propagation, particles, 5)
