"""Populations of linear controllers on a latent state, played side by side: in the environment, or in a dream.

Candidate p's episode e is row `p * E + e` of both. Random numbers are antithetic as in World Models' public code: the
two halves of a population meet the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_mbrl.models.mdn_rnn import MDNRNN, Memory


class Controllers(NamedTuple):
    """Linear controllers, one per row: `a = tanh(W [z, h] + b)`, or the largest entry if actions are discrete.

    Attributes:
        weights: `[N, (F + 1) A]`, `W` and `b` of each.
        action_dim: A.
        discrete: whether actions are one-hot.
        use_h: whether they see `h` besides `z`.
    """

    weights: Tensor
    action_dim: int
    discrete: bool
    use_h: bool

    def act(self, z: Tensor, h: Tensor) -> Tensor:
        """Returns actions `[N, A]` at codes `[N, Z]` and states `[N, D]`."""
        feature = torch.cat([z, h], -1) if self.use_h else z
        matrix = self.weights[:, : -self.action_dim].unflatten(1, (self.action_dim, feature.shape[-1]))
        out = torch.baddbmm(self.weights[:, -self.action_dim :].unsqueeze(-1), matrix, feature.unsqueeze(-1))
        out = out.squeeze(-1).to(self.weights)  # in half with mixed precision
        return F.one_hot(out.argmax(-1), self.action_dim).to(out) if self.discrete else out.tanh()

    def of(self, rows: Any) -> Controllers:
        """Returns those of some rows."""
        return self._replace(weights=self.weights[rows])


def antithetic_rows(population: int, episodes: int) -> Tensor:
    """Returns for each of the `P E` rows which of the `ceil(P / 2) E` random streams it meets."""
    half = -(-population // 2)
    return (torch.arange(population) % half).repeat_interleave(episodes) * episodes + torch.arange(episodes).repeat(
        population
    )


@torch.no_grad()
def dream_returns(
    rnn: MDNRNN,
    controllers: Controllers,
    z: Tensor,
    uniform: Callable[[], Tensor],
    noise: Callable[[], Tensor],
    steps: int,
    temperature: float,
) -> Tensor:
    """Plays every row's controller in the model, all rows as one batch; returns sums of rewards `[N]`.

    The reward of a step is the predicted one, or 1 for being alive if the model predicts none (arXiv 1803.10122,
    section 4). An episode ends where the logit of its end is above 0, as in the public code, or after `steps`.

    Args:
        z: first codes `[N, Z]`.
        uniform: draws `[N, Z]` in [0, 1) for each step.
        noise: draws `[N, Z]`, standard normal.
    """
    memory = rnn.start(len(z))
    alive, total = torch.ones_like(z[:, 0]), torch.zeros_like(z[:, 0])
    for _ in range(steps):
        memory = rnn.step(z, controllers.act(z, memory.h), memory)
        predicted = rnn.predict(memory.h)
        total += alive if predicted.reward is None else alive * predicted.reward.squeeze(-1)
        if predicted.termination is not None:
            alive = alive * (predicted.termination.squeeze(-1) <= 0)
            if not alive.any():
                break
        z = predicted.sample(uniform(), noise(), temperature)
    return total


class Player(NamedTuple):
    """What it takes to act on images: `encode` maps them `[N, C, H, W]` to mean and std `[N, Z]` of their codes."""

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    rnn: MDNRNN


@torch.no_grad()
def play_returns(env: Any, player: Player, controllers: Controllers, seeds: list[int]) -> tuple[Tensor, int]:
    """Plays one episode of each row's controller in the environment's copies; returns `[N]` returns, and steps taken.

    A copy whose episode is over begins the next row's. Environment and noise of the codes are seeded by the episode, so
    that returns do not depend on who has played before, nor on how many worker processes there are.

    Args:
        env: an `envs.VectorEnv` with a limit of its own.
        seeds: of each row's episode.
    """
    returns, steps = _play(env, player, controllers, seeds)
    while env.pop_truncations():  # once more if a worker has died in the middle of it
        returns, steps = _play(env, player, controllers, seeds)
    return returns, steps


def _play(env: Any, player: Player, controllers: Controllers, seeds: list[int]) -> tuple[Tensor, int]:
    count, device = env.config.num_envs, controllers.weights.device
    rows = np.arange(count) % len(seeds)  # which each copy plays
    counts = np.arange(count) < len(seeds)  # whether it still does
    following, steps = count, 0
    returns = torch.zeros(len(seeds), dtype=torch.float64)
    env.set_seeds([seeds[row] for row in rows])
    observation = env.restart(None)
    memory = player.rnn.start(count)
    generators = [torch.Generator().manual_seed(seeds[row]) for row in rows]
    while counts.any():
        mean, std = player.encode(torch.from_numpy(observation).to(device))
        noise = torch.stack([torch.randn(mean.shape[-1], generator=each) for each in generators]).to(mean)
        z, active = mean + std * noise, controllers.of(torch.from_numpy(rows))
        action = active.act(z, memory.h)
        memory = player.rnn.step(z, action, memory)
        chosen = (action.argmax(-1) if controllers.discrete else action).cpu().numpy()
        observation, reward, terminated, truncated = env.advance(chosen)
        steps += int(counts.sum())
        returns[rows[counts]] += torch.from_numpy(reward[counts, 0]).double()
        over = (terminated | truncated)[:, 0]
        if not over.any():
            continue
        new_seeds: list[int | None] = [None] * count
        for copy in np.flatnonzero(over).tolist():
            counts[copy] &= following < len(seeds)
            if counts[copy]:
                rows[copy], following = following, following + 1
                new_seeds[copy] = seeds[rows[copy]]
                generators[copy] = torch.Generator().manual_seed(seeds[rows[copy]])
        env.set_seeds(new_seeds)
        observation = np.where(over[:, None, None, None], env.restart(over), observation)
        kept = torch.from_numpy(~over).to(device).unsqueeze(-1)
        memory = Memory(memory.h * kept, memory.c * kept)
    return returns.to(controllers.weights), steps
