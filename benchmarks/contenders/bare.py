"""A training loop with nothing around it: raw Gymnasium, one packed NumPy ring, plain torch, no logging."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import bare_ppo
from benchmarks.contenders.bare_updates import Losses, compiled_round, eager_round, mlp, tanh_gaussian
from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter


class PackedReplay:
    """Rows of observation, action, next observation, reward and termination in one array.

    Args:
        capacity: rows.
        width: numbers in a row.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self.rows = np.zeros((capacity, width), np.float32)
        self.size = self.cursor = 0
        self.random = np.random.default_rng(0)

    def add(self, observation: np.ndarray, action: np.ndarray, following: np.ndarray, rest: tuple[float, bool]) -> None:
        """Appends a transition."""
        row, o, a = self.rows[self.cursor], len(observation), len(action)
        row[:o] = observation
        row[o : o + a] = action
        row[o + a : o + a + o] = following
        row[-2:] = rest
        self.cursor = (self.cursor + 1) % len(self.rows)
        self.size = min(self.size + 1, len(self.rows))

    def sample(self, count: int) -> Tensor:
        """Rows drawn uniformly with replacement, `[count, width]`."""
        return torch.from_numpy(self.rows[self.random.integers(self.size, size=count)])


class RawEnv:
    """The environment without wrappers; the time limit is counted here.

    Args:
        name: Gymnasium's id.
        seed: of the first reset.
    """

    def __init__(self, name: str, seed: int) -> None:
        made = gymnasium.make(name, disable_env_checker=True)
        assert made.spec is not None and isinstance(made.action_space, gymnasium.spaces.Box)
        self.env, self.limit, self.steps = made.unwrapped, made.spec.max_episode_steps, 0
        low, high = made.action_space.low, made.action_space.high
        self.scale, self.shift = (high - low) / 2, (high + low) / 2
        self.observation = np.asarray(self.env.reset(seed=seed)[0], np.float32)

    def step(self, action: np.ndarray, replay: PackedReplay) -> None:
        """One step with an action in [-1, 1], stored; a new episode where one ends."""
        following, reward, terminated, truncated, _ = self.env.step(action * self.scale + self.shift)
        replay.add(self.observation, action, following, (float(reward), terminated))
        self.steps += 1
        if terminated or truncated or self.steps == self.limit:
            following, self.steps = self.env.reset()[0], 0
        self.observation = np.asarray(following, np.float32)


def train(work: Work, meter: Meter) -> None:
    """The contender."""
    if work.algorithm == "ppo":
        bare_ppo.train(work, meter)
        return
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    envs = [RawEnv(work.env, seed) for seed in range(work.num_envs)]
    o, a = len(envs[0].observation), len(envs[0].scale)
    losses = Losses(work, o, a)
    replay = PackedReplay(work.capacity, 2 * o + a + 2)
    run = compiled_round(losses) if work.compile else eager_round(losses)
    frames = rounds = 0
    batch_size = work.batch_size or 256
    while True:
        if frames < work.learning_starts:
            actions = replay.random.uniform(-1, 1, (work.num_envs, a)).astype(np.float32)
        else:
            with torch.inference_mode():
                observations = torch.from_numpy(np.stack([env.observation for env in envs]))
                noise = torch.randn(work.num_envs, a)
                if work.algorithm == "sac":
                    action, _ = tanh_gaussian(losses.actor, observations, noise)
                else:
                    action = (torch.tanh(mlp(losses.actor, observations)) + 0.1 * noise).clamp_(-1, 1)
                actions = action.numpy()
        for env, action in zip(envs, actions, strict=True):
            env.step(action, replay)
        frames += work.num_envs
        meter.started()
        if frames > work.learning_starts and frames % work.frames_per_round < work.num_envs:
            rounds += 1
            noise = torch.randn(losses.noise_shape(batch_size))
            run(replay.sample(batch_size), noise, rounds % losses.policy_every == 0)
            meter.tick()
