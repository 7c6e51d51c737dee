"""Time of PILCO's expected cost with its gradient, and of a whole search, by points of the model and by horizon.

    python -m benchmarks.studies.pilco_growth --out docs/pilco_time.png

One thread. Seconds are those that the process has worked, which other programs disturb less than the clock; each is the
least of some turns. The model has seen random transitions of a cart-pole's sizes; the policy has 50 basis functions. A
search of L-BFGS takes about 1.2 evaluations per iteration, so 100 of them stand for a stage's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from lit_mbrl.algorithms import PILCO
from lit_mbrl.envs import Spec
from lit_mbrl.models.costs import SaturatingCost
from lit_mbrl.models.moment_matching import Gaussian
from lit_mbrl.training.lbfgs import value_and_gradient

POINTS, HORIZONS = (25, 50, 100, 200, 400, 800), (10, 20, 40, 80)
OBSERVATION, ACTION = 4, 1


def make(points: int, horizon: int) -> PILCO:
    """PILCO with a model of so many points, of a cart-pole's sizes: x, angle and their velocities."""
    torch.manual_seed(0)
    cost = SaturatingCost(
        matrix=((1.0, 0.0, 0.0, 0.0, -0.6, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, -0.6)), target=(0.0, 0.6), width=0.4
    )
    algorithm = PILCO(horizon=horizon, angles=(1,), cost=cost)
    algorithm.configure(Spec("cart-pole", OBSERVATION, ACTION))
    inputs, changes = torch.randn(points, 6).double(), 0.1 * torch.randn(points, OBSERVATION).double()
    algorithm.model.max_points = points
    algorithm.kernels = algorithm.model.posterior(inputs, changes)
    algorithm.actor.initialize(inputs[:, :5])
    return algorithm


def seconds(points: int, horizon: int, turns: int) -> float:
    """Seconds of the processor for one evaluation with its gradient, the least of some turns after a first one."""
    algorithm = make(points, horizon)
    start = Gaussian(torch.zeros(OBSERVATION).double(), 0.01 * torch.eye(OBSERVATION).double())
    parameters, found = list(algorithm.actor.parameters()), []
    for _ in range(turns + 1):
        before = time.process_time()
        value_and_gradient(lambda: algorithm.expected_cost(start), parameters)
        found.append(time.process_time() - before)
    return min(found[1:])


def draw(by_points: dict[int, float], by_horizon: dict[int, float], horizon: int, points: int, path: Path) -> None:
    """Draws both curves."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for panel, curve, label, title in (
            (left, by_points, "points of the model", f"horizon {horizon}"),
            (right, by_horizon, "horizon", f"{points} points"),
        ):
            panel.plot(list(curve), list(curve.values()), color="#0072B2", marker="o")
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xticks(list(curve), [str(each) for each in curve])
            panel.minorticks_off()
            panel.set_xlabel(label)
            panel.set_ylabel("seconds per evaluation")
            panel.set_title(title, fontsize=10)
            panel.grid(alpha=0.3)
        figure.savefig(path, dpi=130)


def main() -> None:
    """Prints both tables, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="a PNG file")
    parser.add_argument("--points", type=int, default=100, help="of the model, where the horizon changes")
    parser.add_argument("--horizon", type=int, default=25, help="where the number of points changes")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    by_points = {points: seconds(points, given.horizon, given.turns) for points in POINTS}
    by_horizon = {horizon: seconds(given.points, horizon, given.turns) for horizon in HORIZONS}
    for name, curve in (("points", by_points), ("horizon", by_horizon)):
        print(f"| {name} | seconds per evaluation with gradient | seconds per 100 |\n|---|---|---|")
        for size, value in curve.items():
            print(f"| {size} | {value:.3f} | {100 * value:.0f} |")
    if given.out is not None:
        draw(by_points, by_horizon, given.horizon, given.points, given.out)


if __name__ == "__main__":
    main()
