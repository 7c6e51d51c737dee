"""Time-varying linear dynamics fitted to a few episodes: `x' ~ N(A_t x + B_t u + c_t, S_t)` for each step t.

Levine and Abbeel 2014, "Learning Neural Network Policies with Guided Policy Search under Unknown Dynamics"; Gu et al.
2016 (arXiv 1603.00748v1), section 5.2, imagines with it. Each step has a ridge regression of its own. As neither paper
has data enough for one step, the rows of the steps within `window` of it count, too.

`E` episodes, `T` steps, `N` states, `U` actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LocalLinearModel:
    """Linear-Gaussian dynamics of each step of an episode.

    Attributes:
        state: `A_t`, `[T, N, N]`.
        action: `B_t`, `[T, N, U]`.
        offset: `c_t`, `[T, N]`.
        covariance: `S_t` of what the regression leaves, `[T, N, N]`.
    """

    state: Tensor
    action: Tensor
    offset: Tensor
    covariance: Tensor

    def predict(self, step: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Returns the mean of the next states `[B, N]`.

        Args:
            step: of the episode, `[B]`, int64; steps after the last have its dynamics.
            state: `[B, N]`.
            action: `[B, U]`.
        """
        t = step.clamp(0, len(self.offset) - 1)
        moved = torch.einsum("bij,bj->bi", self.state[t], state) + torch.einsum("bij,bj->bi", self.action[t], action)
        return moved + self.offset[t]


def fit_local_linear(
    states: Tensor, actions: Tensor, following: Tensor, window: int = 0, ridge: float = 1e-6
) -> LocalLinearModel:
    """Fits dynamics to episodes of equal length, in float64.

    Minimises `sum |x' - A_t x - B_t u - c_t|^2 + n ridge (|A_t|^2 + |B_t|^2)` over the `n = E (2 window + 1)` rows of
    each step, fewer at both ends.

    Args:
        states: `[E, T, N]`.
        actions: `[E, T, U]`.
        following: next states, `[E, T, N]`.
        window: steps before and after each whose rows count, too.
        ridge: weight of the penalty, which does not concern the offset.
    """
    inputs = torch.cat([states, actions], -1).double()
    outputs, size = following.double(), states.shape[-1]
    weights, offsets, covariances = [], [], []
    penalty = ridge * torch.eye(inputs.shape[-1], dtype=torch.float64, device=inputs.device)
    for t in range(states.shape[1]):
        near = slice(max(t - window, 0), t + window + 1)
        x, y = inputs[:, near].flatten(0, 1), outputs[:, near].flatten(0, 1)
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        weight = torch.linalg.solve(x.T @ x / len(x) + penalty, x.T @ y / len(x)).T  # [N, N + U]
        error = y - x @ weight.T
        weights.append(weight)
        offsets.append(y_mean - weight @ x_mean)
        covariances.append(error.T @ error / len(error))
    both = torch.stack(weights)
    return LocalLinearModel(both[..., :size], both[..., size:], torch.stack(offsets), torch.stack(covariances))
