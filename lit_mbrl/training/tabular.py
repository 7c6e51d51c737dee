"""Tables of action values and of a deterministic model, updated one entry after the other.

`S` states, `A` actions. Each operation of an update is on a single number, where a tensor's would take a
microsecond: the updates read and write the tensors' own memory as flat `memoryview`s
(`benchmarks/studies/planning_updates.py`). So the tables stay on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModelTable(nn.Module):
    """The last outcome of each action in each state, and when it was.

    Actions that were never taken lead back to their state with reward 0 (the book's footnote on Dyna-Q+), last taken at
    time 0.

    Args:
        states: S.
        actions: A.

    Attributes:
        following: next states `[S, A]`, int64.
        reward: `[S, A]`, float64.
        terminated: `[S, A]`, bool.
        last_taken: times `[S, A]`, int64.
        time: of the newest outcome; the first one's is 1.
        visited: states in which an action was taken, in the order of their first one, `[S]`, int64.
        num_visited: how many of these are there.
        taken: actions that were taken in each state, in that order, `[S, A]`, int64.
        num_taken: how many of these are there, `[S]`, int64.
    """

    following: Tensor
    reward: Tensor
    terminated: Tensor
    last_taken: Tensor
    time: Tensor
    visited: Tensor
    num_visited: Tensor
    taken: Tensor
    num_taken: Tensor

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.states, self.actions = states, actions
        self.register_buffer("following", torch.arange(states)[:, None].repeat(1, actions))
        self.register_buffer("reward", torch.zeros(states, actions, dtype=torch.float64))
        self.register_buffer("terminated", torch.zeros(states, actions, dtype=torch.bool))
        for name in ("last_taken", "taken"):
            self.register_buffer(name, torch.zeros(states, actions, dtype=torch.long))
        for name in ("visited", "num_taken"):
            self.register_buffer(name, torch.zeros(states, dtype=torch.long))
        for name in ("time", "num_visited"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))

    def observe(self, state: int, action: int, reward: float, following: int, terminated: bool) -> None:
        """Takes an outcome in the place of the last one of this action in this state."""
        self.time += 1
        if not int(self.last_taken[state, action]):
            count = int(self.num_taken[state])
            if not count:
                self.visited[self.num_visited] = state
                self.num_visited += 1
            self.taken[state, count] = action
            self.num_taken[state] += 1
        self.following[state, action], self.reward[state, action] = following, reward
        self.terminated[state, action], self.last_taken[state, action] = terminated, self.time


def q_update(
    q: Tensor, state: int, action: int, reward: float, following: int, terminated: bool, lr: float, gamma: float
) -> None:
    """One step of Q-learning on `q` `[S, A]` in place: eq. 6.8 of Sutton and Barto 2018.

    `Q(s, a) <- Q(s, a) + lr (r + gamma (1 - terminated) max Q(s', .) - Q(s, a))`
    """
    target = reward if terminated else reward + gamma * float(q[following].max())
    q[state, action] += lr * (target - float(q[state, action]))


def plan(
    q: Tensor, model: ModelTable, uniforms: Tensor, lr: float, gamma: float, kappa: float = 0.0, untried: bool = False
) -> None:
    """Steps of Q-learning on outcomes that the model remembers, in place: tabular Dyna-Q, step (f).

    A state is drawn uniformly from those visited, and then an action from those taken in it. With `kappa` the reward is
    `r + kappa sqrt(time - last_taken)`.

    Args:
        q: action values `[S, A]`, float64, on the CPU.
        model: with at least one outcome.
        uniforms: two numbers in [0, 1) for the draws of each step, `[n, 2]`.
        lr: step size.
        gamma: discount.
        kappa: of Dyna-Q+.
        untried: draw from all actions instead.
    """
    actions = model.actions
    values, following, reward, terminated, last, visited, taken, num_taken = (
        memoryview(table.numpy().reshape(-1))
        for table in (
            *(q, model.following, model.reward, model.terminated, model.last_taken),
            *(model.visited, model.taken, model.num_taken),
        )
    )
    time, count = int(model.time), int(model.num_visited)
    for first, second in uniforms.tolist():
        state = visited[int(first * count)]
        row = state * actions
        entry = row + (int(second * actions) if untried else taken[row + int(second * num_taken[state])])
        target = reward[entry]
        if kappa:
            target += kappa * (time - last[entry]) ** 0.5
        if not terminated[entry]:
            start = following[entry] * actions
            target += gamma * max(values[start : start + actions])
        values[entry] += lr * (target - values[entry])
