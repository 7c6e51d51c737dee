"""The memory of World Models: an LSTM with a mixture density output (arXiv 1803.10122, appendix A.2).

    h_t+1, c_t+1 = LSTM([z_t, a_t], h_t, c_t)        P(z_t+1 | ...) = mixture(h_t+1), for each number by itself

The controller acts on `z_t` and `h_t`; the action enters the state afterwards. With Z = 32, A = 3, 256 units and 5
components these are the 422,368 parameters of the paper's table. As in the public code a gate has one bias: it is the
column of a constant input, since torch's own LSTM has two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Prediction(NamedTuple):
    """Of the step after each input: mixtures `[..., Z, K]` of the next code, and what else comes with it.

    | field | shape | |
    |---|---|---|
    | `log_weight`, `mean`, `log_std` | `[..., Z, K]` | |
    | `termination` | `[..., 1]` | logit of the episode ending in it; None without that head |
    | `reward` | `[..., 1]` | that comes with it; None without that head |
    """

    log_weight: Tensor
    mean: Tensor
    log_std: Tensor
    termination: Tensor | None
    reward: Tensor | None

    def sample(self, uniform: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Draws codes `[..., Z]`: log weights divided by the temperature, the noise times its square root.

        Args:
            uniform: `[..., Z]` in [0, 1), chooses each number's component.
            noise: `[..., Z]`, standard normal.
        """
        edges = (self.log_weight / temperature).softmax(-1).cumsum(-1)[..., :-1]
        index = (uniform.unsqueeze(-1) >= edges).sum(-1, keepdim=True)
        mean, log_std = self.mean.gather(-1, index).squeeze(-1), self.log_std.gather(-1, index).squeeze(-1)
        return mean + log_std.exp() * noise * math.sqrt(temperature)


class Memory(NamedTuple):
    """State of the LSTM: `h` and `c` `[N, D]`."""

    h: Tensor
    c: Tensor


class MDNRNN(nn.Module):
    """Predicts codes from codes and actions.

    Args:
        latent: Z.
        action_dim: A.
        hidden: D, units of the LSTM.
        mixtures: K, components for each number.
        termination: predict whether the episode ends.
        reward: predict the reward.
    """

    def __init__(
        self,
        latent: int = 32,
        action_dim: int = 3,
        hidden: int = 256,
        mixtures: int = 5,
        termination: bool = False,
        reward: bool = False,
    ) -> None:
        super().__init__()
        self.latent, self.hidden, self.mixtures = latent, hidden, mixtures
        self.sizes = [latent * mixtures] * 3 + [int(termination), int(reward)]
        self.lstm = nn.LSTM(latent + action_dim + 1, hidden, bias=False, batch_first=True)
        self.output = nn.Linear(hidden, sum(self.sizes))

    def start(self, count: int) -> Memory:
        """Returns the state of so many episodes before their first action: zeros."""
        zeros = self.output.weight.new_zeros(count, self.hidden)
        return Memory(zeros, zeros)

    def forward(self, z: Tensor, action: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Takes in codes `[N, T, Z]`, actions `[N, T, A]`; returns `h` after each, `[N, T, D]`, and the last state."""
        inputs = torch.cat([z, action, torch.ones_like(z[..., :1])], -1)
        h, c = self.start(len(z)) if memory is None else memory
        # In float32 with mixed precision, too: not every processor has an LSTM in bfloat16.
        with torch.autocast(z.device.type, enabled=False):
            inputs, h, c = (value.to(self.output.weight) for value in (inputs, h, c))
            out, (h, c) = self.lstm(inputs, (h.unsqueeze(0), c.unsqueeze(0)))
        return out, Memory(h.squeeze(0), c.squeeze(0))

    def step(self, z: Tensor, action: Tensor, memory: Memory) -> Memory:
        """Takes in one code `[N, Z]` and the action `[N, A]` that was taken there."""
        return self(z.unsqueeze(1), action.unsqueeze(1), memory)[1]

    def predict(self, h: Tensor) -> Prediction:
        """Predicts from states `h` `[..., D]`."""
        logits, mean, log_std, termination, reward = self.output(h).split(self.sizes, -1)
        shape = (self.latent, self.mixtures)
        return Prediction(
            logits.unflatten(-1, shape).log_softmax(-1),
            mean.unflatten(-1, shape),
            log_std.unflatten(-1, shape),
            termination if self.sizes[3] else None,
            reward if self.sizes[4] else None,
        )
