"""iLQR: a trajectory is improved by the linear-quadratic problem around it, again and again.

Li and Todorov 2004, "Iterative Linear Quadratic Regulator Design for Nonlinear Biological Movement Systems"; control
limits, regularisation and line search as in Tassa, Mansard and Todorov 2014, "Control-Limited Differential Dynamic
Programming" (box-DDP). With the cost `l = -r`, and derivatives along the trajectory of cost and dynamics `f`,

    Q_x  = l_x + f_x^T V_x'         Q_xx = l_xx + f_x^T V_xx' f_x
    Q_u  = l_u + f_u^T V_x'         Q_ux = l_ux + f_u^T V_xx' f_x       Q_uu = l_uu + f_u^T V_xx' f_u + mu I
    k = argmin_k 1/2 k^T Q_uu k + Q_u^T k within the limits,   K = -Q_uu^-1 Q_ux of the actions that are inside
    u <- u + alpha k + K (x_new - x)

iLQG (Todorov and Li 2005, "A generalized iterative LQG method") adds noise to the dynamics; noise that depends on
neither state nor action leaves the control law as it is.

Readings and departures: second derivatives of the dynamics are left out (that is iLQR, and not DDP). The cost's Hessian
is that of the reward without its negative eigenvalues, so `Q_uu` is never indefinite, however the reward is curved. All
step sizes alpha are tried at once, and the best one counts. Nothing comes after the last reward.

`R` trajectories at once, `H` steps, `S` numbers of a state, `A` of an action, `L` step sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lit_mbrl.planners.base import Objective, Planner, Search
from lit_mbrl.planners.box_qp import solve_box_qp
from lit_mbrl.planners.derivatives import convex, gradient_and_hessian, jacobian
from lit_mbrl.planners.model_objective import ModelObjective, ModelStep
from lit_mbrl.utils.options import options
from lit_mbrl.utils.types import NonNegativeFloat, PositiveFloat, PositiveInt

_FACTOR, _LEAST, _MOST = 1.6, 1e-6, 1e10  # of mu: Tassa et al.'s schedule
_LEAST_SHARE = 1e-4  # of the expected improvement that a step has to bring


class Expansion(NamedTuple):
    """Derivatives along trajectories: `f_x`, `f_u`, and gradient and Hessian of the cost in `[x, u]`.

    | field | shape |
    |---|---|
    | `state` | `[R, H, S, S]` |
    | `action` | `[R, H, S, A]` |
    | `gradient` | `[R, H, S + A]` |
    | `hessian` | `[R, H, S + A, S + A]` |
    """

    state: Tensor
    action: Tensor
    gradient: Tensor
    hessian: Tensor


class ControlLaw(NamedTuple):
    """`u + alpha k + K (x_new - x)` in each step, and what it is expected to gain: `alpha a + alpha^2 b`.

    | field | shape | |
    |---|---|---|
    | `step` | `[R, H, A]` | k |
    | `gain` | `[R, H, A, S]` | K |
    | `linear`, `quadratic` | `[R]` | a and b |
    | `solved` | `[R]` | whether every `Q_uu` was positive definite |
    """

    step: Tensor
    gain: Tensor
    linear: Tensor
    quadratic: Tensor
    solved: Tensor


class Trajectory(NamedTuple):
    """Result of an optimisation: actions `[R, H, A]`, states `[R, H + 1, S]`, returns `[R]`, the last law's gains
    `[R, H, A, S]`, who has converged `[R]`, and the number of iterations."""

    actions: Tensor
    states: Tensor
    returns: Tensor
    gains: Tensor
    converged: Tensor
    iterations: int


@options(frozen=True, eq=True, repr=True)
class ILQR(Planner):
    """Iterative LQR in a differentiable model, for B environments at once, with actions in [-1, 1]."""

    needs_gradient: ClassVar[bool] = True

    horizon: PositiveInt = 25
    """H, steps of a plan."""
    num_candidates: PositiveInt = 1
    """N, sequences that are improved side by side, of which the best is taken: the last plan's rest, and others drawn
    around it."""
    iterations: PositiveInt = 20
    """Improvements at most."""
    init_std: PositiveFloat = 0.5
    """Standard deviation of the sequences that are drawn, in units of the action range [-1, 1]."""
    limits: Literal["box", "clamp"] = "box"
    """How actions stay in their range: each step solves a quadratic problem with bounds (box-DDP), or actions are
    clamped afterwards."""
    regularization: NonNegativeFloat = 1e-6
    """First mu; it grows where no step size improves, and falls where one does."""
    step_sizes: PositiveInt = 11
    """L, step sizes 1, 1/2, 1/4, ... that are tried in each iteration."""
    tolerance: NonNegativeFloat = 1e-7
    """A trajectory is ready once an improvement, relative to 1 plus its return's size, is less."""

    def draws(self, batch_size: int, action_dim: int, device: torch.device | None = None) -> Iterator[Tensor]:
        """Draws the noise of the further sequences to begin with, `[B, N - 1, H, A]`."""
        yield torch.randn(batch_size, self.num_candidates - 1, self.horizon, action_dim, device=device)

    @torch.no_grad()
    def search(self, objective: Objective, draws: Iterable[Tensor], memory: Tensor) -> Search:
        """Improves the last plan's rest and the drawn sequences.

        Raises:
            TypeError: if the objective is no `ModelObjective`.
        """
        if not isinstance(objective, ModelObjective):
            raise TypeError("ILQR needs a model that it can differentiate: an objective that is a ModelObjective")
        first = memory[:, :1]
        drawn = [first + self.init_std * z for z in draws]
        candidates = torch.cat([first, *drawn], 1).clamp(-1.0, 1.0)
        batch, each = candidates.shape[:2]
        start = objective.start.repeat_interleave(each, 0)
        found = self.optimize(objective.step, start, candidates.flatten(0, 1))
        returns = found.returns.view(batch, each)
        best = returns.nan_to_num(nan=-torch.inf).argmax(1)
        rows = torch.arange(batch, device=best.device) * each + best
        plan = found.actions[rows]
        return Search(
            plan, plan.unsqueeze(1), found.returns[rows], torch.zeros_like(found.returns[rows]), found.iterations
        )

    @torch.no_grad()
    def optimize(self, step: ModelStep, start: Tensor, actions: Tensor) -> Trajectory:
        """Improves action sequences until none improves any more, or the iterations are over.

        Args:
            step: the model.
            start: `[R, S]`.
            actions: to begin with, `[R, H, A]`.
        """
        states, returns = rollout(step, start, actions)
        mu = torch.full_like(returns, self.regularization, dtype=torch.float64)
        delta = torch.ones_like(mu)
        ready = ~returns.isfinite()  # nothing to improve on: the model is broken there
        converged = torch.zeros_like(ready)
        gains = actions.new_zeros(*actions.shape, start.shape[-1])
        sizes = 0.5 ** torch.arange(self.step_sizes, device=start.device, dtype=start.dtype)
        iterations = 0
        while iterations < self.iterations and not ready.all():
            iterations += 1
            law = self.control_law(expand(step, states, actions), actions, mu)
            new_states, new_actions, new_returns = self._try(step, states, actions, law, sizes)
            best = (new_returns - returns).nan_to_num(nan=-torch.inf).argmax(0)  # [R]
            rows, alpha = torch.arange(len(best), device=best.device), sizes[best].double()
            gained = (new_returns[best, rows] - returns).double()
            expected = alpha * law.linear + alpha.square() * law.quadratic
            better = law.solved & ~ready & (gained > 0) & (gained >= _LEAST_SHARE * expected)
            little = self.tolerance * (1.0 + returns.abs().double())
            # Little gained, or little to be gained, which rounding then hides.
            at_end = law.solved & ~ready & torch.where(better, gained < little, law.linear + law.quadratic < little)
            each = better[:, None, None]
            gains = torch.where((law.solved & ~ready)[:, None, None, None], law.gain.to(gains), gains)
            states = torch.where(each, new_states[best, rows], states)
            actions = torch.where(each, new_actions[best, rows], actions)
            returns = torch.where(better, new_returns[best, rows], returns)
            # With a large mu every improvement is small.
            converged = converged | (at_end & (mu <= max(self.regularization, _LEAST)))
            delta = torch.where(better, (delta / _FACTOR).clamp(max=1 / _FACTOR), (delta * _FACTOR).clamp(min=_FACTOR))
            scaled = mu * delta
            mu = torch.where(better, torch.where(scaled > _LEAST, scaled, 0.0), scaled.clamp(min=_LEAST))
            ready = ready | at_end | (mu > _MOST)
        return Trajectory(actions, states, returns, gains, converged, iterations)

    def _try(
        self, step: ModelStep, states: Tensor, actions: Tensor, law: ControlLaw, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Follows a control law with each step size: states `[L, R, H + 1, S]`, actions, and returns `[L, R]`."""
        count, many = len(sizes), (len(sizes), len(actions))
        scaled = sizes[:, None, None, None] * law.step.to(actions)
        planned = (actions + scaled).flatten(0, 1)  # [L R, H, A]
        gain, along = law.gain.to(actions).repeat(count, 1, 1, 1), states.repeat(count, 1, 1)
        x, total = along[:, 0], actions.new_zeros(len(along))
        seen, taken = [x], []
        for t in range(actions.shape[1]):
            u = planned[:, t] + (gain[:, t] @ (x - along[:, t]).unsqueeze(-1)).squeeze(-1)
            u = u.clamp(-1.0, 1.0)
            x, reward = step(x, u)
            total = total + reward
            seen.append(x)
            taken.append(u)
        return (
            torch.stack(seen, 1).unflatten(0, many),
            torch.stack(taken, 1).unflatten(0, many),
            total.unflatten(0, many),
        )

    def control_law(self, along: Expansion, actions: Tensor, mu: Tensor) -> ControlLaw:
        """Solves the linear-quadratic problem around trajectories, from their ends to their beginnings, in float64.

        Args:
            along: derivatives.
            actions: `[R, H, A]`.
            mu: `[R]`.
        """
        along, actions = Expansion(*(part.double() for part in along)), actions.double()
        size, eye = along.state.shape[-1], torch.eye(actions.shape[-1], dtype=torch.float64, device=actions.device)
        value, curvature = torch.zeros_like(along.gradient[:, 0, :size]), torch.zeros_like(along.state[:, 0])
        linear, quadratic, solved = torch.zeros_like(mu), torch.zeros_like(mu), torch.ones_like(mu, dtype=torch.bool)
        steps: list[Tensor] = []
        gains: list[Tensor] = []
        for t in reversed(range(actions.shape[1])):
            moves = torch.cat([along.state[:, t], along.action[:, t]], -1)  # [R, S, S + A]
            q = along.gradient[:, t] + (moves.transpose(1, 2) @ value.unsqueeze(-1)).squeeze(-1)
            q_of_both = along.hessian[:, t] + moves.transpose(1, 2) @ curvature @ moves
            q_x, q_u = q[:, :size], q[:, size:]
            q_xx, q_ux, q_uu = q_of_both[:, :size, :size], q_of_both[:, size:, :size], q_of_both[:, size:, size:]
            regular = q_uu + mu[:, None, None] * eye
            failed = torch.linalg.cholesky_ex(regular).info != 0
            solved = solved & ~failed
            regular = torch.where(failed[:, None, None], eye, regular)
            if self.limits == "box":
                k, free = solve_box_qp(regular, q_u, -1.0 - actions[:, t], 1.0 - actions[:, t])
            else:
                k, free = -torch.linalg.solve(regular, q_u), torch.ones_like(q_u, dtype=torch.bool)
            inside = free.to(k)
            # Rows of actions at a limit are those of the identity, and have no feedback.
            system = regular * inside.unsqueeze(1) * inside.unsqueeze(2) + torch.diag_embed(1.0 - inside)
            gain = -torch.linalg.solve(system, inside.unsqueeze(2) * q_ux)
            column = k.unsqueeze(-1)
            linear = linear - (k * q_u).sum(-1)
            quadratic = quadratic - 0.5 * (k * (q_uu @ column).squeeze(-1)).sum(-1)
            back = gain.transpose(1, 2)
            value = q_x + (back @ (q_uu @ column + q_u.unsqueeze(-1)) + q_ux.transpose(1, 2) @ column).squeeze(-1)
            crossed = back @ q_ux
            curvature = q_xx + back @ q_uu @ gain + crossed + crossed.transpose(1, 2)
            curvature = 0.5 * (curvature + curvature.transpose(1, 2))
            steps.append(k)
            gains.append(gain)
        return ControlLaw(torch.stack(steps[::-1], 1), torch.stack(gains[::-1], 1), linear, quadratic, solved)


def rollout(step: ModelStep, start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Computes states `[R, H + 1, S]` and returns `[R]` of action sequences `[R, H, A]` from states `[R, S]`."""
    seen, total = [start], actions.new_zeros(len(actions))
    for action in actions.unbind(1):
        following, reward = step(seen[-1], action)
        total = total + reward
        seen.append(following)
    return torch.stack(seen, 1), total


def expand(step: ModelStep, states: Tensor, actions: Tensor) -> Expansion:
    """Computes the derivatives of a model, and of the cost minus reward, along states and actions."""
    size, (rows, horizon) = states.shape[-1], actions.shape[:2]
    both = torch.cat([states[:, :-1], actions], -1).flatten(0, 1)
    _, moves = jacobian(lambda z: step(z[:, :size], z[:, size:])[0], both)
    gradient, hessian = gradient_and_hessian(lambda z: -step(z[:, :size], z[:, size:])[1], both)
    moves = moves.unflatten(0, (rows, horizon))
    return Expansion(
        moves[..., :size],
        moves[..., size:],
        gradient.unflatten(0, (rows, horizon)),
        convex(hessian.double()).unflatten(0, (rows, horizon)),
    )
