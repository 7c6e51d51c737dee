"""Planning updates of tabular Dyna-Q per second, and what the same loop takes on lists, on arrays and on tensors.

    python -m benchmarks.studies.planning_updates

The updates depend on each other, so none can be batched. Kinds take turns, in one thread; a call has 50 updates, as one
environment step of `conf/dyna_q.yaml`, with the draws and the access to the tables in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_mbrl.training.tabular import ModelTable, plan

STATES, ACTIONS, UPDATES, CALLS, TURNS = 54, 4, 50, 40, 20
LR, GAMMA = 0.1, 0.95


def loop(q: Any, model: list[Any], draws: list[list[float]]) -> None:
    """The updates on tables `[S][A]` of any kind."""
    following, reward, terminated = model
    for first, second in draws:
        state, action = int(first * STATES), int(second * ACTIONS)
        target = reward[state][action]
        if not terminated[state][action]:
            target += GAMMA * max(q[following[state][action]])
        q[state][action] += LR * (target - q[state][action])


def main() -> None:
    """Prints updates per second of the fastest turn."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, q = ModelTable(STATES, ACTIONS), torch.zeros(STATES, ACTIONS, dtype=torch.float64)
    for state in range(STATES):
        for action in range(ACTIONS):
            model.observe(state, action, float(torch.rand(())), int(torch.randint(STATES, ())), False)
    tables = [model.following, model.reward, model.terminated]

    def draws() -> Tensor:
        return torch.rand(UPDATES, 2, dtype=torch.float64)

    def on_lists() -> None:
        values = q.tolist()
        loop(values, [table.tolist() for table in tables], draws().tolist())
        q.copy_(torch.tensor(values, dtype=torch.float64))

    kinds: dict[str, Callable[[], None]] = {
        "memoryviews (ours)": lambda: plan(q, model, draws(), LR, GAMMA),
        "lists, copied for each call": on_lists,
        "numpy arrays": lambda: loop(q.numpy(), [table.numpy() for table in tables], draws().tolist()),
        "tensors": lambda: loop(q, tables, draws().tolist()),
    }
    fastest = dict.fromkeys(kinds, float("inf"))
    for _ in range(TURNS):
        for name, kind in kinds.items():
            calls = CALLS if name != "tensors" else 1
            start = time.perf_counter()
            for _ in range(calls):
                kind()
            fastest[name] = min(fastest[name], (time.perf_counter() - start) / calls)
    for name, seconds in fastest.items():
        print(f"{name:30} {UPDATES / seconds:>10,.0f} updates/s")


if __name__ == "__main__":
    main()
