"""Propagates the uncertainty of an ensemble along imagined trajectories, and sums up their rewards (PETS, section 5).

Chua et al. 2018 (arXiv 1805.12114v2). Particles are `[G, R, Q, O]`: each of R trajectories has `P = G Q` of them. With
trajectory sampling `G` is the members, each of which moves Q particles of its own; otherwise G = 1.

| | next state of a particle | P |
|---|---|---|
| `TSinf` | a sample of its own member, the same for the whole trajectory | multiple of E |
| `TS1` | a sample of a member that is drawn anew in every step | multiple of E |
| `DS` | a sample of the normal distribution with the moments of the members' mixture at that particle | any |
| `MM` | a sample of the normal distribution with the moments of the mixture over members and particles | at least 2 |
| `E` | the mean of the members' means | 1 |

Readings: in TS1 every member gets P / E particles in each step (the public code), a permutation instead of independent
draws. The moments of MM are those of the mixture of predicted normal distributions, `mean_i` and `E[v + m^2] - mean^2`;
the public code estimates them from a sample of each particle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lit_mbrl.models import TaskEnsemble, TerminationRule
from lit_mbrl.utils.errors import OptionError, require

Propagation = Literal["TSinf", "TS1", "DS", "MM", "E"]
# (observation, action, next observation) -> reward
Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
# (plans [R, H, A], particles [G, R, Q, O], step) -> actions, [G, R, Q, A] or what broadcasts to it
Controller = Callable[[Tensor, Tensor, int], Tensor]


def check_particles(propagation: str, particles: int, members: int) -> None:
    """Raises `OptionError` for an unknown propagation, or a number of particles that it cannot use."""
    if propagation not in ("TSinf", "TS1", "DS", "MM", "E"):
        raise OptionError("model.propagation", propagation, "TSinf, TS1, DS, MM or E")
    name = f"with model.propagation={propagation}"
    if propagation in ("TSinf", "TS1"):
        multiple = f"a multiple of model.num_members={members} {name}"
        require(particles > 0 and particles % members == 0, "model.particles", particles, multiple)
    elif propagation == "E":
        require(particles == 1, "model.particles", particles, f"1, or null, {name}: all particles would be the same")
    else:
        least = 1 + (propagation == "MM")
        require(particles >= least, "model.particles", particles, f"an integer >= {least} {name}")


def open_loop(plans: Tensor, particles: Tensor, step: int) -> Tensor:
    """Takes actions from action sequences, whatever happens: a `Controller`."""
    return plans[:, step, None]


class TrajectorySampler:
    """Imagines trajectories of particles in an ensemble and sums up their rewards.

    Args:
        dynamics: the ensemble.
        propagation: how particles move.
        particles: P.
        reward: the known reward; None: the ensemble's own.
        terminated: the known termination rule; what comes after a termination earns nothing. None: nothing terminates.
        chunk: particles imagined at a time; plans are split accordingly, whose memory would grow with their number.
    """

    def __init__(
        self,
        dynamics: TaskEnsemble,
        propagation: Propagation = "TSinf",
        particles: int = 20,
        reward: Reward | None = None,
        terminated: TerminationRule | None = None,
        chunk: int = 10_000,
    ) -> None:
        assert dynamics.predict_reward == (reward is None), "either a known reward or a learned one"
        self.dynamics, self.propagation, self.particles = dynamics, propagation, particles
        self.groups = dynamics.members if propagation in ("TSinf", "TS1") else 1
        self.reward, self.terminated, self.chunk = reward, terminated, chunk

    @torch.no_grad()
    def returns(self, observation: Tensor, plans: Tensor, controller: Controller, horizon: int) -> Tensor:
        """Mean return over the particles, `[B, N]`, of N plans from each of B observations.

        Args:
            observation: `[B, O]`.
            plans: `[B, N, ...]`, what the controller reads: action sequences, noise, weights.
            controller: gives the actions.
            horizon: H.
        """
        batch, each = plans.shape[:2]
        starts = observation[:, None].expand(-1, each, -1).flatten(0, 1)
        rows = max(1, self.chunk // self.particles)
        pieces = zip(starts.split(rows), plans.flatten(0, 1).split(rows), strict=True)
        return torch.cat([self._returns(*piece, controller, horizon) for piece in pieces]).view(batch, each)

    def _returns(self, start: Tensor, plans: Tensor, controller: Controller, horizon: int) -> Tensor:
        x = self.spread(start)
        total = x.new_zeros(len(start))
        alive = torch.ones(*x.shape[:-1], 1, dtype=torch.bool, device=x.device)
        for t in range(horizon):
            if self.propagation == "TS1":
                x, alive = self.regroup(x, alive)
            x, alive, earned = self.move(x, controller(plans, x, t), alive)
            total = total + earned
        return total

    def move(self, x: Tensor, u: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Takes one step of all particles; returns them, which go on, and what a trajectory earns on average, `[R]`."""
        u = u.expand(*x.shape[:-1], u.shape[-1])
        following, reward = self.step(x, u)
        if self.reward is not None:
            reward = self.reward(x, u, following)
        assert reward is not None
        if self.terminated is not None:
            reward = torch.where(alive, reward, 0.0)
            alive = alive & ~self.terminated(x, u, following)
        return following, alive, reward.mean((0, 2, 3))

    @torch.no_grad()
    def trajectories(self, observation: Tensor, plans: Tensor, controller: Controller, horizon: int) -> Tensor:
        """The particles of one plan from each of B observations, `[B, P, H + 1, O]`.

        Args:
            plans: `[B, ...]`.
        """
        x = self.spread(observation)
        seen = [x]
        for t in range(horizon):
            if self.propagation == "TS1":  # back at their own places afterwards
                order = self.permutation(x)
                moved = self._take(x, order)
                u = controller(plans, moved, t)
                following, _ = self.step(moved, u.expand(*x.shape[:-1], u.shape[-1]))
                x = self._take(following, order.argsort(1))
            else:
                u = controller(plans, x, t)
                x, _ = self.step(x, u.expand(*x.shape[:-1], u.shape[-1]))
            seen.append(x)
        return torch.stack(seen, -2).transpose(0, 1).flatten(1, 2)

    # ------------------------------------------------------------------ particles
    def spread(self, observation: Tensor) -> Tensor:
        """Returns particles `[G, R, Q, O]` that all begin at their trajectory's observation `[R, O]`."""
        return observation[None, :, None].expand(self.groups, -1, self.particles // self.groups, -1)

    def permutation(self, x: Tensor) -> Tensor:
        """Draws a new place for each particle of a trajectory, `[R, P]`."""
        return torch.rand(x.shape[1], self.particles, device=x.device).argsort(1)

    def regroup(self, *of_particles: Tensor) -> list[Tensor]:
        """Returns the same particles `[G, R, Q, ...]` under members that are drawn anew."""
        order = self.permutation(of_particles[0])
        return [self._take(value, order) for value in of_particles]

    def _take(self, value: Tensor, order: Tensor) -> Tensor:
        groups, rows, each, _ = value.shape
        flat = value.transpose(0, 1).reshape(rows, groups * each, -1)
        return flat.take_along_dim(order[:, :, None], 1).view(rows, groups, each, -1).transpose(0, 1)

    def step(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Moves particles `[G, R, Q, O]` with actions `[G, R, Q, A]`; and their predicted rewards, if there are any."""
        shape = x.shape[:-1]
        if self.propagation in ("TSinf", "TS1"):
            mean, log_var = self.dynamics(x.flatten(1, 2), u.flatten(1, 2))  # [E, R Q, D]: each member on its own
            return self.dynamics.advance(x, _sample(mean, (0.5 * log_var).exp()).view(*shape, -1))
        mean, log_var = self.dynamics(x.flatten(0, 2), u.flatten(0, 2))  # [E, R P, D]: each member on all particles
        if self.propagation == "E":
            return self.dynamics.advance(x, mean.mean(0).view(*shape, -1))
        mean, variance = mixture_moments(mean, log_var.exp(), 0)
        if self.propagation == "DS":
            return self.dynamics.advance(x, _sample(mean, variance.sqrt()).view(*shape, -1))
        # MM: moments of the next state, since the particles' own states differ; the reward's are of itself.
        following, reward = self.dynamics.advance(x, mean.view(*shape, -1))
        observations = variance.view(*shape, -1)[..., : x.shape[-1]]
        matched = _match(following, observations)
        return matched, None if reward is None else _match(reward, variance.view(*shape, -1)[..., -1:])


def mixture_moments(mean: Tensor, variance: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Computes mean and variance of an equal mixture along a dimension: the law of total variance."""
    between, center = torch.var_mean(mean, dim=dim, correction=0, keepdim=keepdim)
    return center, variance.mean(dim, keepdim) + between


def _match(mean: Tensor, variance: Tensor) -> Tensor:
    """Draws particles `[1, R, Q, D]` from the normal distribution with the moments of all of a trajectory's."""
    center, matched = mixture_moments(mean, variance, 2, keepdim=True)
    return _sample(center.expand_as(mean), matched.sqrt())


def _sample(mean: Tensor, std: Tensor) -> Tensor:
    return torch.addcmul(mean, std, torch.randn_like(mean))
