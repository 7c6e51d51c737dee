"""Rewards in units of the standard deviation of their discounted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lit_mbrl.utils import distributed


class RewardNormalizer(nn.Module):
    """`r / std(G)`, cut to `[-clip, clip]`, with `G_t = gamma G_{t-1} + r_t` over the running episode.

    The scale of PPO's implementations (`VecNormalize` of OpenAI baselines): no mean is subtracted, since that would
    change what the agent is paid for living longer. `gamma` is the algorithm's: with another one the variance is that
    of another sum. Here the statistics take a whole rollout in before its rewards are scaled, all by the same number;
    step-wise implementations scale each reward by the statistics up to its own step.

    Statistics are float64 buffers. The running sum of each environment is state, too, and part of a checkpoint.

    Args:
        gamma: discount.
        clip: largest scaled reward.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, gamma: float, clip: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip
        for name in ("count", "mean", "m2"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.running: Tensor | None = None  # [N]

    @torch.no_grad()
    def forward(self, reward: Tensor, done: Tensor) -> Tensor:
        """Takes a rollout in and scales it.

        Args:
            reward: `[N, T, 1]`.
            done: `[N, T, 1]`, True where an episode ends, in either way.
        """
        rewards, goes_on = reward.squeeze(-1).double(), 1.0 - done.squeeze(-1).double()
        total = rewards.new_zeros(rewards.shape[0]) if self.running is None else self.running.to(rewards)
        sums = []
        for r, goes in zip(rewards.unbind(1), goes_on.unbind(1), strict=True):
            total = self.gamma * total + r
            sums.append(total)
            total = total * goes
        self.running = total
        self._update(distributed.gather_rows(torch.stack(sums).flatten()).to(self.mean))
        std = (self.m2 / self.count).sqrt()
        return (rewards / (std + 1e-8)).clamp(-self.clip, self.clip).unsqueeze(-1).to(reward)

    def _update(self, sums: Tensor) -> None:
        """Chan's merge of two sets of statistics."""
        num, mean = sums.numel(), sums.mean()
        delta, total = mean - self.mean, self.count + num
        self.m2 += (sums - mean).square().sum() + delta.square() * (self.count * num / total)
        self.mean += delta * (num / total)
        self.count.copy_(total)

    def restart(self, envs: Iterable[int]) -> None:
        """New episodes have begun out of turn in these environments."""
        if self.running is not None:
            self.running[list(envs)] = 0.0

    def get_extra_state(self) -> Tensor:
        return torch.empty(0) if self.running is None else self.running

    def set_extra_state(self, state: Tensor) -> None:
        self.running = state.clone() if state.numel() else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RewardNormalizer:
        def keep_dtype(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        super()._apply(keep_dtype, recurse)
        return self
