"""Local linear dynamics that are refitted again and again, as buffers of an algorithm.

Gu et al. 2016 (arXiv 1603.00748v1), section 5.3: time-varying linear-Gaussian dynamics, and where episodes begin in
many states separate ones for each group of start states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mbrl.models.local_linear import fit_local_linear


class TimeVaryingDynamics(nn.Module):
    """`y ~ N(A_t x + B_t u + c_t, S_t)` for each step `t` of an episode, in `M` modes.

    `y` `[D]` is the next observation and, where the reward is learned, the reward behind it.

    Args:
        steps: `T`, of the longest episode.
        observation_dim: `N`.
        action_dim: `U`.
        modes: `M`.
        reward: whether the reward is predicted, too.
    """

    state: Tensor
    action: Tensor
    offset: Tensor
    noise: Tensor

    def __init__(self, steps: int, observation_dim: int, action_dim: int, modes: int = 1, reward: bool = False) -> None:
        super().__init__()
        self.observation_dim, out = observation_dim, observation_dim + reward
        self.register_buffer("state", torch.zeros(modes, steps, out, observation_dim))
        self.register_buffer("action", torch.zeros(modes, steps, out, action_dim))
        self.register_buffer("offset", torch.zeros(modes, steps, out))
        self.register_buffer("noise", torch.zeros(modes, steps, out, out))  # F_t with F_t F_t^T = S_t

    def fit(
        self,
        states: Tensor,
        actions: Tensor,
        following: Tensor,
        lengths: Tensor,
        mode: Tensor,
        window: int,
        ridge: float,
    ) -> Tensor:
        """Fits each mode to its episodes (`fit_local_linear`).

        Args:
            states: `[E, T', N]`.
            actions: `[E, T', U]`.
            following: `y`, `[E, T', D]`.
            lengths: of the episodes, `[E]`.
            mode: of the episodes, `[E]`; each has one at least.
            window: see `fit_local_linear`.
            ridge: see `fit_local_linear`.

        Returns:
            The mean squared residual of an entry of `y`, a scalar, mean over modes and steps.
        """
        left = []
        for m in mode.unique().tolist():
            own = mode == m
            last = int(lengths[own].max())
            parts = (part[own, :last] for part in (states, actions, following))
            model = fit_local_linear(*parts, window=window, ridge=ridge, lengths=lengths[own])
            variance, basis = torch.linalg.eigh(model.covariance)
            noise = basis * variance.clamp(min=0.0).sqrt().unsqueeze(-2)
            step = torch.arange(self.offset.shape[1]).clamp(max=last - 1)  # later steps have the last one's
            fitted = {"state": model.state, "action": model.action, "offset": model.offset, "noise": noise}
            for name, value in fitted.items():
                getattr(self, name)[m] = value[step].to(self.offset)
            left.append(variance.mean())
        return torch.stack(left).mean()

    def step(
        self, mode: Tensor, step: Tensor, observation: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Predicts, with the given noise, what comes after an action.

        Args:
            mode: `[B]`, int64.
            step: of the episode, `[B]`, int64; steps after the last have its dynamics.
            observation: `[B, N]`.
            action: `[B, U]`.
            noise: standard normal, `[B, D]`.

        Returns:
            The next observation `[B, N]`, and the reward `[B, 1]` or None.
        """
        t = mode, step.clamp(max=self.offset.shape[1] - 1)
        moved = self.state[t] @ observation.unsqueeze(-1) + self.action[t] @ action.unsqueeze(-1)
        y = (moved + self.noise[t] @ noise.unsqueeze(-1)).squeeze(-1) + self.offset[t]
        size = self.observation_dim
        return y[:, :size], y[:, size:] if y.shape[-1] > size else None


def group_starts(points: Tensor, groups: int) -> Tensor:
    """Assigns each of `points` `[E, N]` to one of `groups` groups, `[E]`: each has its farthest point as its centre.

    Centres are chosen one after the other, each the point that is farthest from those so far (Gonzalez 1985), and each
    point goes to the nearest; none of them is without points while points differ.
    """
    centres = [0]
    for _ in range(min(groups, len(points)) - 1):
        distance = torch.cdist(points, points[centres]).amin(1)
        distance[centres] = -1.0
        centres.append(int(distance.argmax()))
    nearest = torch.cdist(points, points[centres]).argmin(1)
    nearest[centres] = torch.arange(len(centres), device=points.device)
    return nearest
