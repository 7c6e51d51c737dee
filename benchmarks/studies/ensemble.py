"""Ensemble of 7 networks of 4x200: one vectorised module against separate networks in a loop.

    python -m benchmarks.studies.ensemble [--threads 1] [--pairs 15] [--device cpu] [--compile]

Interleaved pairs: each measurement of ours is followed by one of the other, and the figure is the median of the pairs'
ratios, with the range of the middle half. Both sides compute the same numbers, which is checked first. On one thread
times are those that the processor has worked for us, which other programs disturb less.

- training pass: forward, Gaussian likelihood with its bounds and decay, backward and Adam's step, on batches of 256;
  with all parameters of the separate networks in one Adam (one fused step), with one Adam per network, and with Adams
  that decay the weights, as ours does, where the first two have the decay in their loss.
- products alone: the matrix products of a pass and nothing else, one by one as the loop has them. What the loop takes
  in units of that is the most that any way to organise the same pass could gain on it.
- compiled (`--compile`): the pass of `--model.compile=true`, loss and gradients as one graph.
- rollouts: 100 000 one-step predictions, each by one of 5 elites drawn at random, noise included. The other side asks
  the elites one after the other about all samples and then picks, as a loop over members does it.

The pass is 1.4 GFLOP of matrix products on both sides: one product for all members saves calls, not arithmetic. A
rollout asks one elite where the loop asks all. docs/performance.md has what came of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.envs.tasks.terminations import never
from lit_mbrl.losses import bound_penalty, bounded_log_variance, gaussian_nll
from lit_mbrl.models import EnsembleConfig, EnsembleDynamics
from lit_mbrl.models.ensemble import targets
from lit_mbrl.training.compiled_loss import CompiledLoss
from lit_mbrl.training.optim import Adam

SIZES = {"Hopper": (11, 3), "HalfCheetah": (17, 6)}
ROLLOUTS = 100_000


class Separate(nn.Module):
    """The same ensemble as a list of networks of `nn.Linear` layers."""

    def __init__(self, ours: EnsembleDynamics) -> None:
        super().__init__()
        widths = [ours.networks.weights[0].shape[1], *(weight.shape[2] for weight in ours.networks.weights)]
        self.networks, self.decays = nn.ModuleList(), ours.weight_decay
        for member in range(ours.members):
            layers: list[nn.Module] = []
            for fan_in, fan_out in pairwise(widths):
                layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
            self.networks.append(nn.Sequential(*layers[:-1]))
            with torch.no_grad():
                for linear, weight, bias in zip(layers[::2], ours.networks.weights, ours.networks.biases, strict=True):
                    linear.weight.copy_(weight[member].T)
                    linear.bias.copy_(bias[member, 0])
        self.max_log_var = nn.Parameter(ours.max_log_var.detach().clone())
        self.min_log_var = nn.Parameter(ours.min_log_var.detach().clone())

    def predict(self, member: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of one network."""
        mean, raw = self.networks[member](inputs).chunk(2, dim=-1)
        return mean, bounded_log_variance(raw, self.min_log_var, self.max_log_var)

    def loss(self, frames: TensorDict, decay: bool = True) -> Tensor:
        """The sum of the networks' losses, one after the other; with or without the weight decay."""
        inputs, target = torch.cat([frames["observation"], frames["action"]], -1), targets(frames)
        total = bound_penalty(self.min_log_var, self.max_log_var)
        for member, network in enumerate(self.networks):
            mean, log_var = self.predict(member, inputs[member])
            total = total + gaussian_nll(mean, log_var, target[member]).mean()
            if decay:
                for factor, linear in zip(self.decays, network[::2], strict=True):
                    total = total + 0.5 * factor * linear.weight.square().sum()
        return total

    @torch.no_grad()
    def rollout(self, observation: Tensor, action: Tensor, elites: list[int]) -> Tensor:
        """Every elite about all samples; each sample takes one of the answers."""
        inputs = torch.cat([observation, action], -1)
        means, log_vars = zip(*(self.predict(elite, inputs) for elite in elites), strict=True)
        choice = torch.randint(len(elites), (len(inputs),), device=inputs.device)
        rows = torch.arange(len(inputs), device=inputs.device)
        mean, log_var = torch.stack(means)[choice, rows], torch.stack(log_vars)[choice, rows]
        return mean + (0.5 * log_var).exp() * torch.randn_like(mean)


def training(loss: Callable[[], Tensor], optimizers: list[Adam]) -> Callable[[], None]:
    """One pass: loss, backward, step."""

    def run() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss().backward()
        for optimizer in optimizers:
            optimizer.step()

    return run


def products(other: Separate, frames: TensorDict) -> Callable[[], None]:
    """The matrix products of a pass: forward, and the gradients of weights and of all inputs but the first."""
    layers = [list(network[::2]) for network in other.networks]
    rows = frames.shape[1]
    inputs = [[torch.randn(rows, x.in_features, device=frames.device) for x in each] for each in layers]
    gradients = [[torch.randn(rows, x.out_features, device=frames.device) for x in each] for each in layers]
    weights = [[x.weight.detach() for x in each] for each in layers]

    def run() -> None:
        for xs, gs, ws in zip(inputs, gradients, weights, strict=True):
            for x, w in zip(xs, ws, strict=True):
                torch.mm(x, w.T)
            for number, (x, g, w) in enumerate(zip(xs, gs, ws, strict=True)):
                torch.mm(g.T, x)
                if number:
                    torch.mm(g, w)

    return run


def compare(name: str, ours: Callable[[], object], other: Callable[[], object], repeat: int, pairs: int) -> None:
    """Prints the median time of ours and the median ratio of the pairs."""

    clock = time.perf_counter if torch.cuda.is_available() or torch.get_num_threads() > 1 else time.process_time

    def measure(run: Callable[[], object]) -> float:
        start = clock()
        for _ in range(repeat):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (clock() - start) / repeat

    measure(ours), measure(other)
    times = [(measure(ours), measure(other)) for _ in range(pairs)]
    ratios = sorted(b / a for a, b in times)
    low, high = ratios[pairs // 4], ratios[-1 - pairs // 4]
    print(
        f"{name:58} {1e3 * statistics.median(a for a, _ in times):8.2f} ms"
        f"   {statistics.median(ratios):5.2f}x [{low:.2f}, {high:.2f}]",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.threads} threads, {options.device}: ours, and how many times longer the loop takes")
    for task in SIZES:
        benchmark(task, options)


def benchmark(task: str, options: argparse.Namespace) -> None:
    """The three comparisons at a task's sizes."""
    device, (observation_dim, action_dim) = options.device, SIZES[task]
    model = EnsembleConfig(termination="known").build(observation_dim, action_dim, never).to(device)
    ours, other = model.dynamics, Separate(model.dynamics).to(device)
    frames = TensorDict(
        {
            "observation": torch.randn(7, options.rows, observation_dim),
            "action": torch.rand(7, options.rows, action_dim) * 2 - 1,
            "next": {
                "observation": torch.randn(7, options.rows, observation_dim),
                "reward": torch.randn(7, options.rows, 1),
            },
        },
        [7, options.rows],
    ).to(device)
    torch.testing.assert_close(ours.loss(frames).sum(), other.loss(frames), rtol=1e-4, atol=1e-4)
    (objective,) = EnsembleConfig(termination="known").objectives(model)
    pass_ours = training(lambda: objective.fit_loss(frames), [Adam(objective.groups(), lr=1e-3, fused=True)])
    one = training(lambda: other.loss(frames), [Adam(other.parameters(), lr=1e-3, fused=True)])
    compare(f"{task}: training pass, one Adam for all networks", pass_ours, one, 5, options.pairs)
    groups = [*(list(network.parameters()) for network in other.networks), [other.max_log_var, other.min_log_var]]
    many = training(lambda: other.loss(frames), [Adam(group, lr=1e-3, fused=True) for group in groups])
    compare(f"{task}: training pass, one Adam for each", pass_ours, many, 5, options.pairs)
    decayed = []
    for network in other.networks:
        linears = list(network[::2])
        decayed += [{"params": [x.weight], "weight_decay": d} for x, d in zip(linears, other.decays, strict=True)]
        decayed += [{"params": [x.bias for x in linears]}]
    decayed.append({"params": [other.max_log_var, other.min_log_var]})
    fast = training(lambda: other.loss(frames, decay=False), [Adam(decayed, lr=1e-3, fused=True)])
    compare(f"{task}: training pass, one Adam that decays", pass_ours, fast, 5, options.pairs)
    alone = products(other, frames)
    compare(f"{task}: the products alone, beside the loop", alone, one, 5, options.pairs)
    if options.compile:
        graph = CompiledLoss(model, objective.fit_loss, objective.parameters())
        optimizer = Adam(objective.groups(), lr=1e-3, fused=True)

        def compiled() -> None:
            graph(frames)
            optimizer.step()

        compare(f"{task}: compiled pass, beside the loop", compiled, one, 5, options.pairs)
        compare(f"{task}: compiled pass, beside ours", compiled, pass_ours, 5, options.pairs)

    x = torch.randn(ROLLOUTS, observation_dim, device=device)
    u = torch.rand(ROLLOUTS, action_dim, device=device) * 2 - 1
    elites = ours.elites.tolist()
    with torch.no_grad():
        name = f"{task}: {ROLLOUTS:,} one-step rollouts, {len(elites)} elites"
        compare(name, lambda: model.step(x, u), lambda: other.rollout(x, u, elites), 1, options.pairs)


if __name__ == "__main__":
    main()
