"""Measures World Models' dreams: steps per second of a whole population as one batch, and of one dream at a time.

python -m benchmarks.studies.dreams --steps 100 --threads 1
"""

from __future__ import annotations

import argparse
import time

import torch

from lit_mbrl.models import MDNRNN
from lit_mbrl.training.population import Controllers, dream_returns


def dream_steps_per_second(rnn: MDNRNN, rows: int, steps: int, repeats: int) -> float:
    """Returns steps of all rows together per second, the best of some repeats."""
    controllers = Controllers(0.1 * torch.randn(rows, 3 * (rnn.latent + rnn.hidden + 1)), 3, False, True)
    z, best = torch.randn(rows, rnn.latent), 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        draw = (lambda: torch.rand_like(z), lambda: torch.randn_like(z))
        dream_returns(rnn, controllers, z, *draw, steps, 1.0)
        best = max(best, rows * steps / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--population", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rnn = MDNRNN()
    one = dream_steps_per_second(rnn, 1, args.steps, args.repeats)
    many = dream_steps_per_second(rnn, args.population * args.episodes, args.steps, args.repeats)
    size = f"{args.population} x {args.episodes}"
    print(f"one at a time {one:,.0f} steps/s; {size} as a batch {many:,.0f} steps/s: {many / one:.1f} x")


if __name__ == "__main__":
    main()
