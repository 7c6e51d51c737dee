"""Local linear dynamics that are refitted again and again, as buffers of an algorithm.

Gu et al. 2016 (arXiv 1603.00748v1), section 5.3: time-varying linear-Gaussian dynamics, and where episodes begin in
many states separate ones for each group of start states. As a few episodes are too few rows for one step, each step's
regression is pulled towards one linear model of all steps of all episodes, a simple form of the prior of Levine and
Abbeel 2014, "Learning Neural Network Policies with Guided Policy Search under Unknown Dynamics".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mbrl.models.local_linear import fit_local_linear

_PRIOR_RIDGE = 1e-6  # of the model of all steps, which has rows enough


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
    range: Tensor

    def __init__(self, steps: int, observation_dim: int, action_dim: int, modes: int = 1, reward: bool = False) -> None:
        super().__init__()
        self.observation_dim, out = observation_dim, observation_dim + reward
        self.register_buffer("state", torch.zeros(modes, steps, out, observation_dim))
        self.register_buffer("action", torch.zeros(modes, steps, out, action_dim))
        self.register_buffer("offset", torch.zeros(modes, steps, out))
        self.register_buffer("noise", torch.zeros(modes, steps, out, out))  # F_t with F_t F_t^T = S_t
        self.register_buffer("range", torch.zeros(2, observation_dim))  # of the observations that it was fitted to

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
        """Fits each mode to its episodes (`fit_local_linear`), in units of the inputs' standard deviations.

        Args:
            states: `[E, T', N]`.
            actions: `[E, T', U]`.
            following: `y`, `[E, T', D]`.
            lengths: of the episodes, `[E]`.
            mode: of the episodes, `[E]`.
            window: see `fit_local_linear`.
            ridge: of the difference from the linear model of all steps.

        Returns:
            The mean squared residual of an entry of `y`, a scalar, mean over modes and steps.
        """
        there = torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1)
        x, u = (part[there].double() for part in (states, actions))
        self.range.copy_(torch.stack([x.amin(0), x.amax(0)]))
        x_unit, u_unit = (torch.where(std > 0, std, 1.0) for std in (x.std(0), u.std(0)))
        rows = (x / x_unit).unsqueeze(1), (u / u_unit).unsqueeze(1), following[there].unsqueeze(1)
        prior = fit_local_linear(*rows, ridge=_PRIOR_RIDGE)
        states, actions, following = states.double() / x_unit, actions.double() / u_unit, following.double()
        following = following - states @ prior.state[0].T - actions @ prior.action[0].T - prior.offset[0]
        left = []
        for m in mode.unique().tolist():
            own = mode == m
            last = int(lengths[own].max())
            parts = states[own, :last], actions[own, :last], following[own, :last]
            model = fit_local_linear(*parts, window=window, ridge=ridge, lengths=lengths[own])
            variance, basis = torch.linalg.eigh(model.covariance)
            fitted = {
                "state": (prior.state + model.state) / x_unit,
                "action": (prior.action + model.action) / u_unit,
                "offset": prior.offset + model.offset,
                "noise": basis * variance.clamp(min=0.0).sqrt().unsqueeze(-2),
            }
            step = torch.arange(self.offset.shape[1]).clamp(max=last - 1)  # later steps have the last one's
            for name, value in fitted.items():
                getattr(self, name)[m] = value[step].to(self.offset)
            left.append(variance.mean())
        return torch.stack(left).mean()

    def near(self, observation: Tensor, margin: float) -> Tensor:
        """Returns which observations `[B, N]` lie in the range of those that the dynamics were fitted to, `[B]`.

        Args:
            margin: by which they may lie outside, in widths of the range.
        """
        low, high = self.range
        room = margin * (high - low)
        return ((observation >= low - room) & (observation <= high + room)).all(-1)

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
    """Assigns each of `points` `[E, N]` to one of `groups` groups, `[E]`, by the nearest of as many centres.

    The first centre is the first point, and each other one the point that is farthest from those so far (Gonzalez 1985,
    "Clustering to minimize the maximum intercluster distance"). Each centre is in its own group, so none is empty; with
    fewer points than groups each is one.
    """
    centres = [0]
    for _ in range(min(groups, len(points)) - 1):
        distance = torch.cdist(points, points[centres]).amin(1)
        distance[centres] = -1.0
        centres.append(int(distance.argmax()))
    nearest = torch.cdist(points, points[centres]).argmin(1)
    nearest[centres] = torch.arange(len(centres), device=points.device)
    return nearest
