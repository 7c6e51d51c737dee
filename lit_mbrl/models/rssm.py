r"""The recurrent state-space model of PlaNet and Dreamer (arXiv 1811.04551v5 section 3, arXiv 1912.01603v3 section 4).

A state has a deterministic part `h` (a GRU's) and a stochastic part `z` (a diagonal Gaussian's). `o_t` is what has been
observed at time t, `a_t` the action that LED to it, `r_t` the reward that came with it: `a_t` and `r_t` belong to the
step from `o_{t-1}` to `o_t`, and are zero where `o_t` is the first of an episode. Every `r_t`, `o_t` and termination
`d_t` is predicted from the state `(h_t, z_t)`.

    p(z_t | h_t)       prior, which imagination samples        h_t = GRU(h_{t-1}, z_{t-1}, a_t)
    q(z_t | h_t, o_t)  posterior, which has seen o_t

Three orders; they differ in how an episode, or a sequence cut out of one, begins.

`act_first`, Dreamer's public code: a step always begins with an action, at the start of an episode with one of zeros.

    a_0 = 0    o_0  r_0 = 0     a_1    o_1  r_1            a_2    o_2  r_2
       |        |    ^           |      |    ^              |      |    ^
    0 -+-> h_0 -+-> z_0 ---------+-> h_1 +-> z_1 -----------+-> h_2 +-> z_2 --->
                     \___ the policy ^        \___ the policy ^

`blind_start`, what MaxEnt Dreamer (arXiv 2112.01195v1, section 2.2 and 4.2) describes as the original: the first action
is taken from the state 0, before anything is observed; `o_0` is never seen, and nothing is predicted of it.

                                a_1    o_1  r_1            a_2    o_2  r_2
                                 |      |    ^              |      |    ^
    h_0 = z_0 = 0 --------------+--> h_1 +-> z_1 ----------+--> h_2 +-> z_2 --->
                 \___ the policy ^             \___ the policy ^

`observe_first`, MaxEnt Dreamer's rearrangement (section 4.2): `o_0` is observed before anything is done.

               o_0  r_0 = 0     a_1    o_1  r_1            a_2    o_2  r_2
                |    ^           |      |    ^              |      |    ^
    h_0 = 0 ----+-> z_0 ---------+-> h_1 +-> z_1 -----------+-> h_2 +-> z_2 --->
                     \___ the policy ^        \___ the policy ^

Legend: `B` batch, `T` replayed time, `D` deterministic, `S` stochastic, `E` embedded observation, `F = S + D`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mbrl.networks.mlp import MLP

TimeOrder = Literal["act_first", "blind_start", "observe_first"]


class Latent(NamedTuple):
    """A state: deterministic part `[..., D]` and a sample of the stochastic part `[..., S]`."""

    deter: Tensor
    stoch: Tensor

    @property
    def feature(self) -> Tensor:
        """Both side by side, `[..., F]`: what policies, values and heads see."""
        return torch.cat([self.stoch, self.deter], dim=-1)

    def detach(self) -> Latent:
        """The same state as a constant."""
        return Latent(self.deter.detach(), self.stoch.detach())

    def flatten(self) -> Latent:
        """`[B, T, ...]` to `[B * T, ...]`."""
        return Latent(self.deter.flatten(0, -2), self.stoch.flatten(0, -2))


class Posterior(NamedTuple):
    """Posterior of a sequence: states and both distributions of their stochastic parts.

    | field | shape | |
    |---|---|---|
    | `latent` | `[B, T, ...]` | states sampled from the posterior |
    | `mean`, `std` | `[B, T, S]` | of the posterior |
    | `prior_mean`, `prior_std` | `[B, T, S]` | of the prior |
    """

    latent: Latent
    mean: Tensor
    std: Tensor
    prior_mean: Tensor
    prior_std: Tensor


class RSSM(nn.Module):
    """Transition, prior and posterior.

    Whatever is not recurrent is computed for all steps at once: the embedded observations' and the actions' share of
    the layers inside the loop before it, the prior after it.

    Args:
        action_dim: A.
        embed_dim: E.
        deter: D.
        stoch: S.
        hidden: width of the layers before the GRU, of the prior and of the posterior.
        min_std: added to the softplus of every standard deviation.
        time_order: see above.
        activation: of all these layers; Dreamer's is ELU, PlaNet's ReLU.
    """

    def __init__(
        self,
        action_dim: int,
        embed_dim: int,
        deter: int = 200,
        stoch: int = 30,
        hidden: int = 200,
        min_std: float = 0.1,
        time_order: TimeOrder = "act_first",
        activation: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__()
        self.deter, self.stoch, self.min_std, self.time_order = deter, stoch, min_std, time_order
        self.activation = activation()
        self.inputs = nn.Linear(stoch + action_dim, hidden)
        self.cell = nn.GRUCell(hidden, deter)
        self.prior_net = MLP(deter, [hidden], 2 * stoch, activation)
        self.posterior_net = MLP(deter + embed_dim, [hidden], 2 * stoch, activation)

    @property
    def first(self) -> int:
        """Index of the first observation of a sequence that is observed."""
        return 1 if self.time_order == "blind_start" else 0

    def initial(self, num: int) -> Latent:
        """The state of zeros, `num` times."""
        like = self.inputs.weight
        return Latent(like.new_zeros(num, self.deter), like.new_zeros(num, self.stoch))

    def noise(self, *shape: int) -> Tensor:
        """Standard normal noise `[*shape, S]`."""
        like = self.inputs.weight
        return torch.randn(*shape, self.stoch, dtype=like.dtype, device=like.device)

    # ------------------------------------------------------------------ one step
    def prior(self, deter: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `[..., S]` of `p(z_t | h_t)`."""
        return self._gaussian(self.prior_net(deter))

    def img_step(self, latent: Latent, action: Tensor, noise: Tensor) -> Latent:
        """The state after `action [N, A]`, from the prior with noise `[N, S]`."""
        deter = self._advance(latent, self._action_share(action))
        mean, std = self.prior(deter)
        return Latent(deter, mean + std * noise)

    def obs_step(self, latent: Latent, action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor) -> Latent:
        """The state after `action [N, A]` has led to what `embed [N, E]` is of: a step of acting.

        Args:
            is_first: bool `[N, 1]`, where an episode begins; state and action before it are forgotten.
            noise: `[N, S]`; zeros take the posterior's mean.
        """
        start = self.initial(len(action))
        before = Latent(*(torch.where(is_first, new, old) for new, old in zip(start, latent, strict=True)))
        action = torch.where(is_first, torch.zeros_like(action), action)
        deter = self._advance(before, self._action_share(action))
        if self.time_order == "observe_first":
            deter = torch.where(is_first, start.deter, deter)
        mean, std = self._posterior(deter, self._embed_share(embed))
        stoch = mean + std * noise
        if self.time_order == "blind_start":
            deter, stoch = torch.where(is_first, start.deter, deter), torch.where(is_first, start.stoch, stoch)
        return Latent(deter, stoch)

    # ------------------------------------------------------------------ a sequence
    def observe(self, embed: Tensor, action: Tensor, noise: Tensor) -> Posterior:
        """States of sequences that lie within an episode, from the state of zeros on.

        Args:
            embed: `[B, T, E]`.
            action: `[B, T, A]`, entry t led to observation t.
            noise: `[B, T, S]`.

        Returns:
            T steps; T - 1 in the order `blind_start`, those of the observations from `first` on.
        """
        first = self.first
        embeds = self._embed_share(embed[:, first:]).unbind(1)
        actions = self._action_share(action[:, first:]).unbind(1)
        latent = self.initial(len(embed))
        steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for t, (seen, done, eps) in enumerate(zip(embeds, actions, noise[:, first:].unbind(1), strict=True)):
            starts_here = t == 0 and self.time_order == "observe_first"
            deter = latent.deter if starts_here else self._advance(latent, done)
            mean, std = self._posterior(deter, seen)
            latent = Latent(deter, mean + std * eps)
            steps.append((deter, latent.stoch, mean, std))
        deter, stoch, mean, std = (torch.stack(values, 1) for values in zip(*steps, strict=True))
        return Posterior(Latent(deter, stoch), mean, std, *self.prior(deter))

    # ------------------------------------------------------------------ parts of a step
    def _action_share(self, action: Tensor) -> Tensor:
        return F.linear(action, self.inputs.weight[:, self.stoch :], self.inputs.bias)

    def _embed_share(self, embed: Tensor) -> Tensor:
        layer = self._posterior_input()
        return F.linear(embed, layer.weight[:, self.deter :], layer.bias)

    def _posterior_input(self) -> nn.Linear:
        layer = self.posterior_net[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def _advance(self, latent: Latent, action_share: Tensor) -> Tensor:
        hidden = self.activation(F.linear(latent.stoch, self.inputs.weight[:, : self.stoch]) + action_share)
        return self.cell(hidden, latent.deter.to(hidden.dtype)).to(latent.deter.dtype)

    def _posterior(self, deter: Tensor, embed_share: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.linear(deter, self._posterior_input().weight[:, : self.deter]) + embed_share
        return self._gaussian(self.posterior_net.finish(hidden, list(self.posterior_net)[1:]))

    def _gaussian(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = raw.chunk(2, dim=-1)
        return mean, F.softplus(std) + self.min_std
