"""SAC's, TD3's and DDPG's round as plain functions of tensors: the limit that a library's is measured against.

Networks are lists of tensors, `[weight, bias, ...]`; a round changes them in place. The same losses are run eagerly,
with `torch.autograd.grad` for exactly the parameters that learn and the fused Adam kernel, or as one functional graph
(`torch.func`, Adam written out inside) for `torch.compile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness.work import Work

Net = list[Tensor]
GAMMA, TAU, BETA1, BETA2, EPSILON = 0.99, 0.005, 0.9, 0.999, 1e-8
LOG_STD = (-5.0, 2.0)


def make_net(sizes: Sequence[int]) -> Net:
    """Linear layers as `torch.nn.Linear` initialises them."""
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    return [tensor.detach() for layer in layers for tensor in (layer.weight, layer.bias)]


def mlp(net: Net, x: Tensor) -> Tensor:
    """ReLU between the layers."""
    for i in range(0, len(net) - 2, 2):
        x = F.relu(F.linear(x, net[i], net[i + 1]))
    return F.linear(x, net[-2], net[-1])


def q_values(critic: Net, members: int, observation: Tensor, action: Tensor) -> list[Tensor]:
    """Each member's value `[B, 1]`; the members' layers follow on each other in one list."""
    x, size = torch.cat([observation, action], -1), len(critic) // members
    return [mlp(critic[i * size : (i + 1) * size], x) for i in range(members)]


def tanh_gaussian(actor: Net, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised action `[B, A]` and its log-probability `[B, 1]`."""
    mean, raw = mlp(actor, observation).chunk(2, -1)
    low, high = LOG_STD
    log_std = low + (high - low) / 2 * (torch.tanh(raw) + 1)
    x = mean + log_std.exp() * noise
    log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_prob = log_prob - 2 * (math.log(2) - x - F.softplus(-2 * x))
    return torch.tanh(x), log_prob.sum(-1, keepdim=True)


class Losses:
    """One algorithm's losses; subclasses say which update follows which.

    Args:
        work: algorithm and sizes.
        observation_dim: O.
        action_dim: A.
    """

    def __init__(self, work: Work, observation_dim: int, action_dim: int) -> None:
        self.name, self.lr, self.action_dim = work.algorithm, work.lr or 3e-4, action_dim
        self.members = 1 if self.name == "ddpg" else 2
        hidden = list(work.hidden or ())
        heads = 2 if self.name == "sac" else 1
        self.actor = make_net([observation_dim, *hidden, heads * action_dim])
        self.critic: Net = []
        for _ in range(self.members):
            self.critic += make_net([observation_dim + action_dim, *hidden, 1])
        self.log_alpha = [torch.zeros(())]
        self.critic_target = [tensor.clone() for tensor in self.critic]
        self.actor_target = [tensor.clone() for tensor in self.actor] if self.name != "sac" else []
        self.cuts = [observation_dim, action_dim, observation_dim, 1, 1]

    @property
    def policy_every(self) -> int:
        """Rounds per policy update."""
        return 2 if self.name == "td3" else 1

    def noise_shape(self, batch_size: int) -> tuple[int, ...]:
        """Standard normal noise of a round."""
        return (2 if self.name == "sac" else 1, batch_size, self.action_dim)

    def critic_loss(self, critic: Net, batch: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Squared temporal-difference errors, summed over the members."""
        observation, action, following, reward, terminated = batch
        if self.name == "sac":
            next_action, log_prob = tanh_gaussian(self.actor, following, noise[0])
            entropy = self.log_alpha[0].exp() * log_prob
        else:
            next_action, entropy = torch.tanh(mlp(self.actor_target, following)), 0.0
            if self.name == "td3":
                next_action = (next_action + (0.2 * noise[0]).clamp(-0.5, 0.5)).clamp(-1, 1)
        values = q_values(self.critic_target, self.members, following, next_action)
        value = values[0] if self.members == 1 else torch.minimum(*values)
        target = (reward + GAMMA * (1 - terminated) * (value - entropy)).detach()
        losses = [F.mse_loss(q, target) for q in q_values(critic, self.members, observation, action)]
        return losses[0] if self.members == 1 else losses[0] + losses[1]

    def actor_loss(self, actor: Net, batch: Sequence[Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's objective, and the log-probabilities for the temperature."""
        observation = batch[0]
        if self.name == "sac":
            action, log_prob = tanh_gaussian(actor, observation, noise[1])
            value = torch.minimum(*q_values(self.critic, self.members, observation, action))
            return (self.log_alpha[0].exp().detach() * log_prob - value).mean(), log_prob
        action = torch.tanh(mlp(actor, observation))
        value = mlp(self.critic[: len(self.critic) // self.members], torch.cat([observation, action], -1))
        return -value.mean(), value

    def alpha_loss(self, log_alpha: Net, log_prob: Tensor) -> Tensor:
        """SVG eq. 8."""
        return -(log_alpha[0].exp() * (log_prob.detach() - self.action_dim)).mean()

    def trained(self) -> list[Net]:
        """The groups of parameters that learn."""
        return [self.critic, self.actor, *([self.log_alpha] if self.name == "sac" else [])]

    def pairs(self) -> tuple[Net, Net]:
        """Targets and what they follow."""
        return self.critic_target + self.actor_target, self.critic + (self.actor if self.actor_target else [])


def eager_round(losses: Losses) -> Callable[[Tensor, Tensor, bool], None]:
    """A round run operation by operation: `(packed batch [B, ...], noise, policy)`."""
    moments = []
    for group in losses.trained():
        for parameter in group:
            parameter.requires_grad_(True)
        zeros = [[torch.zeros_like(parameter) for parameter in group] for _ in range(2)]
        moments.append((*zeros, [torch.zeros(()) for _ in group]))

    def descend(index: int, loss: Tensor) -> None:
        group = losses.trained()[index]
        first, second, steps = moments[index]
        gradients = torch.autograd.grad(loss, group)
        with torch.no_grad():
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                group, gradients, first, second, [], steps, lr=losses.lr, beta1=BETA1, beta2=BETA2, weight_decay=0.0,
                eps=EPSILON, amsgrad=False, maximize=False,
            )  # fmt: skip

    def run(packed: Tensor, noise: Tensor, policy: bool) -> None:
        batch = packed.split(losses.cuts, -1)
        descend(0, losses.critic_loss(losses.critic, batch, noise))
        if not policy:
            return
        loss, log_prob = losses.actor_loss(losses.actor, batch, noise)
        descend(1, loss)
        if losses.name == "sac":
            descend(2, losses.alpha_loss(losses.log_alpha, log_prob))
        with torch.no_grad():
            torch._foreach_lerp_(*losses.pairs(), TAU)

    return run


def compiled_round(losses: Losses, backend: str = "inductor") -> Callable[[Tensor, Tensor, bool], None]:
    """The same as one graph per kind of round: losses, gradients, Adam and the soft update, all in place."""
    state = [
        (group, [torch.zeros_like(p) for p in group], [torch.zeros_like(p) for p in group], torch.zeros(()))
        for group in losses.trained()
    ]

    def adam(index: int, gradients: Sequence[Tensor]) -> None:
        group, firsts, seconds, step = state[index]
        step.add_(1)
        size = losses.lr / (1 - BETA1**step)
        correction = (1 - BETA2**step).sqrt()
        for parameter, gradient, first, second in zip(group, gradients, firsts, seconds, strict=True):
            first.lerp_(gradient, 1 - BETA1)
            second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            parameter.sub_(size * first / (second.sqrt() / correction + EPSILON))

    def run(packed: Tensor, noise: Tensor, policy: bool) -> None:
        batch = packed.split(losses.cuts, -1)
        adam(0, torch.func.grad(losses.critic_loss)(losses.critic, batch, noise))
        if not policy:
            return
        gradients, log_prob = torch.func.grad(losses.actor_loss, has_aux=True)(losses.actor, batch, noise)
        adam(1, gradients)
        if losses.name == "sac":
            adam(2, torch.func.grad(losses.alpha_loss)(losses.log_alpha, log_prob))
        for target, online in zip(*losses.pairs(), strict=True):
            target.lerp_(online, TAU)

    return torch.compile(torch.no_grad()(run), fullgraph=True, dynamic=False, backend=backend)
