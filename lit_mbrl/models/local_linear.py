"""Time-varying linear dynamics fitted to a few episodes: `x' ~ N(A_t x + B_t u + c_t, S_t)` for each step t.

Levine and Abbeel 2014, "Learning Neural Network Policies with Guided Policy Search under Unknown Dynamics"; Gu et al.
2016 (arXiv 1603.00748v1), section 5.2, imagines with it. Each step has a ridge regression of its own. As neither paper
has data enough for one step, the rows of the steps within `window` of it count, too.

`E` episodes, `T` steps, `N` numbers of a state, `U` of an action, `D` that are predicted: the next state, and what else
is a function of the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LocalLinearModel:
    """Linear-Gaussian dynamics of each step of an episode.

    Attributes:
        state: `A_t`, `[T, D, N]`.
        action: `B_t`, `[T, D, U]`.
        offset: `c_t`, `[T, D]`.
        covariance: `S_t` of what the regression leaves, `[T, D, D]`.
    """

    state: Tensor
    action: Tensor
    offset: Tensor
    covariance: Tensor

    def predict(self, step: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Returns the mean of what is predicted, `[B, D]`.

        Args:
            step: of the episode, `[B]`, int64; steps after the last have its dynamics.
            state: `[B, N]`.
            action: `[B, U]`.
        """
        t = step.clamp(0, len(self.offset) - 1)
        moved = torch.einsum("bij,bj->bi", self.state[t], state) + torch.einsum("bij,bj->bi", self.action[t], action)
        return moved + self.offset[t]


def fit_local_linear(
    states: Tensor,
    actions: Tensor,
    following: Tensor,
    window: int = 0,
    ridge: float = 1e-6,
    lengths: Tensor | None = None,
) -> LocalLinearModel:
    """Fits dynamics to episodes, in float64.

    Minimises `sum |x' - A_t x - B_t u - c_t|^2 + n ridge (|A_t|^2 + |B_t|^2)` over the `n = E (2 window + 1)` rows of
    each step, fewer at both ends and where episodes are over.

    Args:
        states: `[E, T, N]`.
        actions: `[E, T, U]`.
        following: what is predicted, next states at first, `[E, T, D]`.
        window: steps before and after each whose rows count, too.
        ridge: weight of the penalty, which does not concern the offset.
        lengths: steps of each episode, `[E]`, the longest `T`; what is behind them does not count. None: all have `T`.
    """
    inputs = torch.cat([states, actions], -1).double()
    outputs, size = following.double(), states.shape[-1]
    weights, offsets, covariances = [], [], []
    steps = torch.arange(states.shape[1], device=states.device)
    there = torch.ones_like(states[..., 0], dtype=torch.bool) if lengths is None else steps < lengths.unsqueeze(1)
    penalty = ridge * torch.eye(inputs.shape[-1], dtype=torch.float64, device=inputs.device)
    for t in range(states.shape[1]):
        near = slice(max(t - window, 0), t + window + 1)
        x, y = inputs[:, near][there[:, near]], outputs[:, near][there[:, near]]
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        weight = torch.linalg.solve(x.T @ x / len(x) + penalty, x.T @ y / len(x)).T  # [D, N + U]
        error = y - x @ weight.T
        weights.append(weight)
        offsets.append(y_mean - weight @ x_mean)
        covariances.append(error.T @ error / len(error))
    both = torch.stack(weights)
    return LocalLinearModel(both[..., :size], both[..., size:], torch.stack(offsets), torch.stack(covariances))
