"""PPO with nothing around it: raw Gymnasium, NumPy rollouts, plain torch, no logging, no evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders.bare_updates import BETA1, BETA2, Net
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter

GAMMA, LMBDA, CLIP, VALUE_COEFF, MAX_NORM, EPOCHS, EPSILON = 0.99, 0.95, 0.2, 0.5, 0.5, 10, 1e-5


class Agent:
    """Separate tanh networks of policy and value.

    Args:
        work: sizes.
        observation_dim: of the task.
        actions: numbers in an action, or actions to choose from.
        discrete: which of the two.
    """

    def __init__(self, work: Work, observation_dim: int, actions: int, discrete: bool) -> None:
        self.discrete, self.lr = discrete, work.lr or 3e-4
        sizes = [observation_dim, *(work.hidden or ())]
        self.actor, self.critic = make_net([*sizes, actions], 0.01), make_net([*sizes, 1], 1.0)
        self.log_std = torch.zeros(actions)
        self.parameters = [*self.actor, *self.critic, *([] if discrete else [self.log_std])]

    def act(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An action, its log-probability `[N]` and the value `[N]`."""
        raw = forward(self.actor, observation)
        if self.discrete:
            action = (raw - torch.empty_like(raw).exponential_().log()).argmax(-1)
        else:
            action = raw + self.log_std.exp() * torch.randn_like(raw)
        return action, self.log_prob(self.actor, self.log_std, observation, action), self.value(observation)

    def value(self, observation: Tensor) -> Tensor:
        """`[N]`."""
        return forward(self.critic, observation).squeeze(-1)

    def log_prob(self, actor: Net, log_std: Tensor, observation: Tensor, action: Tensor) -> Tensor:
        """`[N]`."""
        raw = forward(actor, observation)
        if self.discrete:
            return raw.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
        noise = (action - raw) * (-log_std).exp()
        return -0.5 * noise.square().sum(-1) - log_std.sum() - 0.5 * math.log(2 * math.pi) * len(log_std)

    def loss(self, parameters: Net, batch: tuple[Tensor, ...]) -> Tensor:
        """Clipped objective and value of a minibatch."""
        observation, action, old, advantage, target = batch
        count = len(self.actor)
        actor, critic, rest = parameters[:count], parameters[count : 2 * count], parameters[2 * count :]
        ratio = (self.log_prob(actor, rest[0] if rest else self.log_std, observation, action) - old).exp()
        weight = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        objective = torch.minimum(ratio * weight, ratio.clamp(1 - CLIP, 1 + CLIP) * weight).mean()
        error = (forward(critic, observation).squeeze(-1) - target).square().mean()
        return VALUE_COEFF * error - objective


def make_net(sizes: list[int], gain: float) -> Net:
    """Orthogonal weights and zero biases."""
    net = []
    for index in range(len(sizes) - 1):
        weight = torch.empty(sizes[index + 1], sizes[index])
        torch.nn.init.orthogonal_(weight, gain if index == len(sizes) - 2 else math.sqrt(2.0))
        net += [weight, torch.zeros(sizes[index + 1])]
    return net


def forward(net: Net, x: Tensor) -> Tensor:
    """Linear layers with tanh between them."""
    for index in range(0, len(net) - 2, 2):
        x = torch.tanh(torch.nn.functional.linear(x, net[index], net[index + 1]))
    return torch.nn.functional.linear(x, net[-2], net[-1])


def eager_step(agent: Agent) -> Callable[[tuple[Tensor, ...]], None]:
    """A gradient step run operation by operation."""
    parameters = agent.parameters
    for parameter in parameters:
        parameter.requires_grad_(True)
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    steps = [torch.zeros(()) for _ in parameters]

    def step(batch: tuple[Tensor, ...]) -> None:
        gradients = torch.autograd.grad(agent.loss(parameters, batch), parameters)
        with torch.no_grad():
            norm = torch.stack(torch._foreach_norm(gradients)).norm().item()
            if norm > MAX_NORM:
                torch._foreach_mul_(gradients, MAX_NORM / (norm + 1e-6))
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters, gradients, first, second, [], steps, lr=agent.lr, beta1=BETA1, beta2=BETA2,
                weight_decay=0.0, eps=EPSILON, amsgrad=False, maximize=False,
            )  # fmt: skip

    return step


def compiled_step(agent: Agent, backend: str = "inductor") -> Callable[[tuple[Tensor, ...]], None]:
    """The same as one graph: loss, gradient, clipping and Adam, all in place."""
    parameters = agent.parameters
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    count = torch.zeros(())

    def step(batch: tuple[Tensor, ...]) -> None:
        gradients = torch.func.grad(agent.loss)(parameters, batch)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = (MAX_NORM / (norm + 1e-6)).clamp(max=1.0)
        count.add_(1)
        size = agent.lr / (1 - BETA1**count)
        correction = (1 - BETA2**count).sqrt()
        for parameter, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
            gradient = gradient * scale
            m.lerp_(gradient, 1 - BETA1)
            v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            parameter.sub_(size * m / (v.sqrt() / correction + EPSILON))

    return torch.compile(torch.no_grad()(step), fullgraph=True, dynamic=False, backend=backend)


def train(work: Work, meter: Meter) -> None:
    """The contender."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    envs = [gymnasium.make(work.env, disable_env_checker=True) for _ in range(work.num_envs)]
    space = envs[0].action_space
    discrete = isinstance(space, gymnasium.spaces.Discrete)
    observation = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(envs)]).astype(np.float32)
    width, steps = observation.shape[1], work.frames_per_round // work.num_envs
    agent = Agent(work, width, int(space.n) if discrete else space.shape[0], discrete)
    update = compiled_step(agent) if work.compile else eager_step(agent)
    seen = np.zeros((steps, work.num_envs, width), np.float32)
    reward, value, log_prob, advantage = np.zeros((4, steps, work.num_envs), np.float32)
    done = np.zeros((steps, work.num_envs), bool)
    taken: list[Tensor] = []
    while True:
        taken.clear()
        for t in range(steps):
            seen[t] = observation
            with torch.inference_mode():
                drawn, density, estimate = agent.act(torch.from_numpy(seen[t]))
            taken.append(drawn.clone())
            log_prob[t], value[t] = density.numpy(), estimate.numpy()
            actions = drawn.numpy() if discrete else drawn.numpy().clip(-1, 1)
            for i, env in enumerate(envs):
                following, reward[t, i], terminated, truncated, _ = env.step(actions[i])
                done[t, i] = terminated or truncated
                if truncated and not terminated:
                    with torch.inference_mode():
                        last = agent.value(torch.as_tensor(following, dtype=torch.float32)[None])
                    reward[t, i] += GAMMA * last.item()
                observation[i] = env.reset()[0] if done[t, i] else following
            meter.started()
        with torch.inference_mode():
            next_value = agent.value(torch.from_numpy(observation)).numpy()
        running = np.zeros(work.num_envs, np.float32)
        for t in reversed(range(steps)):
            stays = 1.0 - done[t]
            delta = reward[t] + GAMMA * stays * next_value - value[t]
            advantage[t] = running = delta + GAMMA * LMBDA * stays * running
            next_value = value[t]
        rows = (seen, torch.stack(taken).clone(), log_prob, advantage, advantage + value)
        tensors = [torch.as_tensor(row).flatten(0, 1) for row in rows]
        for _ in range(EPOCHS):
            for index in torch.randperm(work.frames_per_round).split(work.batch_size or 64):
                update(tuple(row[index] for row in tensors))
        meter.tick()
