"""Measures how far SAC's critic looks ahead, by an independent SAC and SVG(H) on Pendulum, many seeds at once.

`python -m benchmarks.studies.critic_lag` prints the tables of docs/critic_lag.md. Nothing here is lit_mbrl's: networks
are stacked weights `[S, in, out]`, one of each per seed, Pendulum's equations are written out, and SVG(H) imagines with
them instead of a learned model. So what both show is neither's fault.

`S` seeds, `B` transitions of a batch, trailing 1.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

STEPS, EPISODE, WARM_UP, EPOCH = 5000, 200, 500, 500


@dataclass
class Options:
    """Options that the tables vary; conf/sac_svg.yaml's sizes and rates, tau of Stable-Baselines3 and SVG's table 3."""

    tau: float = 0.005
    gamma: float = 0.99
    horizon: int = 0
    critic_horizon: int = 0
    normalize: bool = True
    target_entropy: float = -1.0
    fixed_alpha: bool = False
    reward_scale: float = 1.0
    init_alpha: float = 0.1
    q_bias: float = 0.0
    batch: int = 128
    hidden: int = 64
    lr: float = 1e-3


def observe(angle: Tensor, speed: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin(), speed], -1)


def pendulum(angle: Tensor, speed: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Next angle, next speed and reward of Pendulum-v1 (m = l = 1, g = 10, dt = 0.05) for actions in [-1, 1]."""
    torque = 2.0 * action
    from_upright = (angle + math.pi) % (2 * math.pi) - math.pi
    reward = -(from_upright**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = (speed + (15.0 * angle.sin() + 3.0 * torque) * 0.05).clamp(-8.0, 8.0)
    return angle + speed * 0.05, speed, reward


def forward(weights: list[Tensor], x: Tensor) -> Tensor:
    """Perceptrons `[S, in, out]`, `[S, 1, out]`, ... of `[S, B, in]`."""
    for i in range(0, len(weights), 2):
        x = torch.baddbmm(weights[i + 1], x, weights[i])
        if i + 2 < len(weights):
            x = x.relu()
    return x


@dataclass
class Agents:
    """SAC (arXiv 1812.05905v2) or SVG(H) (arXiv 2008.12775v3, eq. 9), `S` of them, in the order of its Algorithm 1."""

    seeds: int
    options: Options
    generator: torch.Generator
    count: int = 0

    def __post_init__(self) -> None:
        o, hidden = self.options, self.options.hidden
        self.actor = self.perceptron([3, hidden, hidden, 2])
        self.critics = [self.perceptron([4, hidden, hidden, 1]) for _ in range(2)]
        for critic in self.critics:
            critic[-1].data += o.q_bias
        self.targets = [[w.detach().clone() for w in critic] for critic in self.critics]
        self.log_alpha = torch.full((self.seeds, 1, 1), math.log(o.init_alpha), requires_grad=True)
        self.critic_weights = [w for critic in self.critics for w in critic]
        groups = (self.actor, self.critic_weights, [self.log_alpha])
        self.optimizers = [torch.optim.Adam(group, lr=o.lr, fused=True) for group in groups]
        self.mean = torch.zeros(self.seeds, 1, 3, dtype=torch.float64)
        self.m2 = torch.zeros(self.seeds, 1, 3, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def perceptron(self, sizes: list[int]) -> list[Tensor]:
        weights = []
        for fan_in, fan_out in pairwise(sizes):
            bound = 1.0 / math.sqrt(fan_in)
            weights.append((self.uniform(self.seeds, fan_in, fan_out) * 2 - 1) * bound)
            weights.append((self.uniform(self.seeds, 1, fan_out) * 2 - 1) * bound)
        return [w.requires_grad_() for w in weights]

    # ------------------------------------------------------------------ acting
    def update_statistics(self, observation: Tensor) -> None:
        self.count += 1
        delta = observation.double() - self.mean
        self.mean += delta / self.count
        self.m2 += delta * (observation.double() - self.mean)

    def normalize(self, observation: Tensor) -> Tensor:
        if not self.options.normalize or self.count == 0:
            return observation
        std = (self.m2 / self.count).sqrt().clamp(0.1, 10.0).float()
        return (observation - self.mean.float()) / std

    def sample(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and log-probabilities, `[S, B, 1]` each."""
        out = forward(self.actor, observation)
        log_std = -5.0 + 3.5 * (out[..., 1:].tanh() + 1.0)
        x = out[..., :1] + log_std.exp() * noise
        squash = 2.0 * (math.log(2.0) - x - torch.nn.functional.softplus(-2.0 * x))
        return x.tanh(), -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi) - squash

    def mode(self, observation: Tensor) -> Tensor:
        return forward(self.actor, observation)[..., 0].tanh()

    def q(self, critics: list[list[Tensor]], observation: Tensor, action: Tensor) -> Tensor:
        return torch.cat([forward(critic, torch.cat([observation, action], -1)) for critic in critics], -1)

    # ------------------------------------------------------------------ learning
    def update(self, batch: dict[str, Tensor]) -> None:
        """One round: actor, temperature, critics, targets."""
        o = self.options
        x = self.normalize(observe(batch["angle"], batch["speed"]))
        following = self.normalize(observe(batch["next_angle"], batch["next_speed"]))
        alpha = torch.full((self.seeds, 1, 1), o.init_alpha) if o.fixed_alpha else self.log_alpha.detach().exp()
        log_prob = self.update_actor(x, batch["angle"], batch["speed"], alpha)
        if not o.fixed_alpha:
            loss = self.log_alpha.exp() * (-log_prob.detach() - o.target_entropy)
            self.descend(2, [self.log_alpha], loss)
        inputs, targets = self.critic_targets(batch, x, following, alpha)
        error = sum(
            (self.q(self.critics, *pair) - target).square().sum(-1, keepdim=True)
            for pair, target in zip(inputs, targets, strict=True)
        )
        self.descend(1, self.critic_weights, error / len(targets))
        online = [w.detach() for w in self.critic_weights]
        torch._foreach_lerp_([w for target in self.targets for w in target], online, o.tau)

    @torch.no_grad()
    def critic_targets(
        self, batch: dict[str, Tensor], x: Tensor, following: Tensor, alpha: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Returns the inputs and targets of the critics: SAC's, or MVE's TD-k trick with the true dynamics.

        MVE (arXiv 1803.00101) follows the policy from the next state for `critic_horizon` steps; the target of each
        state-action pair on the way is the discounted rewards from there on and the target networks' value of the last.
        """
        o = self.options
        inputs, rewards = [(x, batch["action"].unsqueeze(-1))], [o.reward_scale * batch["reward"].unsqueeze(-1)]
        angle, speed = batch["next_angle"], batch["next_speed"]
        action, log_prob = self.sample(following, self.normal(self.seeds, o.batch, 1))
        bonuses = [-alpha * log_prob]
        for _ in range(o.critic_horizon):
            inputs.append((following, action))
            angle, speed, reward = pendulum(angle, speed, action[..., 0])
            rewards.append(o.reward_scale * reward.unsqueeze(-1))
            following = self.normalize(observe(angle, speed))
            action, log_prob = self.sample(following, self.normal(self.seeds, o.batch, 1))
            bonuses.append(-alpha * log_prob)
        value = self.q(self.targets, following, action).amin(-1, keepdim=True)
        targets = []
        for reward, bonus in zip(reversed(rewards), reversed(bonuses), strict=True):  # Pendulum never terminates
            value = reward + o.gamma * (value + bonus)
            targets.append(value)
        return inputs, targets[::-1]

    def update_actor(self, x: Tensor, angle: Tensor, speed: Tensor, alpha: Tensor) -> Tensor:
        """Minus the H-step soft value, eq. 9, with the true dynamics; the log-probabilities at replayed states."""
        o = self.options
        action, log_prob = self.sample(x, self.normal(self.seeds, o.batch, 1))
        first, value, discount = log_prob, torch.zeros(()), 1.0
        for _ in range(o.horizon):
            angle, speed, reward = pendulum(angle, speed, action[..., 0])
            value = value + discount * (o.reward_scale * reward.unsqueeze(-1) - alpha * log_prob)
            discount *= o.gamma
            x = self.normalize(observe(angle, speed))
            action, log_prob = self.sample(x, self.normal(self.seeds, o.batch, 1))
        q = self.q(self.critics, x, action).amin(-1, keepdim=True)
        self.descend(0, self.actor, -(value + discount * (q - alpha * log_prob)))
        return first

    def descend(self, index: int, weights: list[Tensor], loss: Tensor) -> None:
        """A step of Adam on the mean over the batch, for each seed by itself."""
        for weight, gradient in zip(weights, torch.autograd.grad(loss.mean((1, 2)).sum(), weights), strict=True):
            weight.grad = gradient
        self.optimizers[index].step()

    # ------------------------------------------------------------------ evaluation
    @torch.no_grad()
    def evaluate(self, episodes: int = 10) -> Tensor:
        """Mean return of deterministic episodes, `[S]`."""
        angle = (self.uniform(self.seeds, episodes) * 2 - 1) * math.pi
        speed = self.uniform(self.seeds, episodes) * 2 - 1
        total = torch.zeros(self.seeds, episodes)
        for _ in range(EPISODE):
            angle, speed, reward = pendulum(angle, speed, self.mode(self.normalize(observe(angle, speed))))
            total += reward
        return total.mean(1)

    @torch.no_grad()
    def critic_against_truth(self) -> dict[str, float]:
        """From a grid of 200 starts: what becomes of them in 200 steps, and `min Q` beside the true discounted return.

        An episode has failed whose last 50 steps cost more than 1 on average: it spins if the speed there is above 3.
        """
        angles, speeds = torch.linspace(-math.pi, math.pi, 41)[:-1], torch.linspace(-1.0, 1.0, 5)
        angle, speed = (x.flatten().expand(self.seeds, -1) for x in torch.meshgrid(angles, speeds, indexing="ij"))
        rewards, values, speeds_seen = [], [], []
        for k in range(EPISODE + 400):  # 0.99^400 = 0.02 is left of what comes later
            x = self.normalize(observe(angle, speed))
            action = self.mode(x)
            if k in (0, 150):
                values.append(self.q(self.critics, x, action.unsqueeze(-1)).amin(-1))
            angle, speed, reward = pendulum(angle, speed, action)
            rewards.append(reward)
            speeds_seen.append(speed.abs())
        returns: dict[int, Tensor] = {}
        following = torch.zeros_like(rewards[0])
        for k in reversed(range(len(rewards))):
            following = rewards[k] + self.options.gamma * following
            returns[k] = following
        late = -torch.stack(rewards[150:EPISODE]).mean(0)
        spins = (late > 1) & (torch.stack(speeds_seen[150:EPISODE]).mean(0) > 3)
        holds = late <= 1
        row = {"holds": holds.float().mean().item(), "spins": spins.float().mean().item()}
        for name, where in (("holds", holds), ("spins", spins)):
            for at, q in zip((0, 150), values, strict=True):
                row[f"Q {name} {at}"] = q[where].mean().item()
                row[f"true {name} {at}"] = returns[at][where].mean().item()
        return row


def train(options: Options, seeds: int, seed: int, critic: bool = False) -> Tensor:
    """Evaluation returns `[evaluations, S]`; `critic` prints what the critic believes every 500 steps from 1500 on."""
    agents = Agents(seeds, options, torch.Generator().manual_seed(seed))
    replay = {
        name: torch.zeros(seeds, STEPS) for name in ("angle", "speed", "action", "reward", "next_angle", "next_speed")
    }
    rows, evaluations = torch.arange(seeds).unsqueeze(1), []
    angle, speed = (agents.uniform(seeds) * 2 - 1) * math.pi, agents.uniform(seeds) * 2 - 1
    for step in range(STEPS):
        x = observe(angle, speed).unsqueeze(1)
        if options.normalize:
            agents.update_statistics(x)
        if step < WARM_UP:
            action = agents.uniform(seeds) * 2 - 1
        else:
            with torch.no_grad():
                action = agents.sample(agents.normalize(x), agents.normal(seeds, 1, 1))[0][:, 0, 0]
        following = pendulum(angle, speed, action)
        for name, value in zip(replay, (angle, speed, action, following[2], *following[:2]), strict=True):
            replay[name][:, step] = value
        angle, speed = following[:2]
        if (step + 1) % EPISODE == 0:
            angle, speed = (agents.uniform(seeds) * 2 - 1) * math.pi, agents.uniform(seeds) * 2 - 1
        if step >= WARM_UP:
            index = torch.randint(0, step + 1, (seeds, options.batch), generator=agents.generator)
            agents.update({name: values[rows, index] for name, values in replay.items()})
        if (step + 1) % EPOCH == 0:
            evaluations.append(agents.evaluate())
            if critic and step + 1 >= 1500:
                print(f"    {step + 1}: " + ", ".join(f"{k} {v:.2f}" for k, v in agents.critic_against_truth().items()))
    return torch.stack(evaluations)


def summary(returns: Tensor) -> str:
    """Summarises the last evaluation, and how many runs fall below -400 at an evaluation after one above -300."""
    learned = (returns > -300).cumsum(0) > 0
    fallen = (returns < -400) & learned
    last, at_evaluations = returns[-1], f"{int(fallen.sum())} of {int(learned.sum())} evaluations"
    return (
        f"above -250 at the end {(last > -250).float().mean():.2f}, worst {last.min():.0f}; fell back "
        f"{int(fallen.any(0).sum())} of {int(learned[-1].sum())} ({at_evaluations}); "
        f"medians every {EPOCH} steps {[round(x) for x in returns.median(1).values.tolist()]}"
    )


VARIANTS = {
    "tau 0.005": {},
    "no normaliser": {"normalize": False},
    "gamma 0.95": {"gamma": 0.95},
    "temperature fixed at 0.1": {"fixed_alpha": True},
    "target entropy -0.5": {"target_entropy": -0.5},
    "rewards times 0.1": {"reward_scale": 0.1, "init_alpha": 0.01},
    "first Q about -200": {"q_bias": -200.0},
    "batch 256": {"batch": 256},
    "tau 0.02": {"tau": 0.02},
    "tau 0.05": {"tau": 0.05},
    "tau 0.02, gamma 0.98": {"tau": 0.02, "gamma": 0.98},
    "H = 2, tau 0.005": {"horizon": 2},
    "H = 2, tau 0.02": {"horizon": 2, "tau": 0.02},
    "MVE(2), tau 0.005": {"critic_horizon": 2},
    "MVE(2), tau 0.01": {"critic_horizon": 2, "tau": 0.01},
    "MVE(2), tau 0.02": {"critic_horizon": 2, "tau": 0.02},
    "MVE(2) and H = 2, tau 0.005": {"horizon": 2, "critic_horizon": 2},
    "MVE(2) and H = 2, tau 0.02": {"horizon": 2, "critic_horizon": 2, "tau": 0.02},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="runs side by side")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers of all of them")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--critic", action="store_true", help="print what the critic believes beside the truth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        returns = train(Options(**VARIANTS[name]), arguments.seeds, arguments.seed, arguments.critic)
        print(f"{name}: {summary(returns)}", flush=True)


if __name__ == "__main__":
    main()
