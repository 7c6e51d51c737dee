"""The return of uniformly random actions: where every learning curve of an environment begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.make import make_configured


def random_returns(config: EnvConfig, episodes: int) -> np.ndarray:
    """Undiscounted returns `[episodes]` of actions drawn uniformly from the environment's action space.

    Args:
        config: the environment, without pictures: they would be drawn for nobody.
        episodes: their number; the k-th is reset with seed k, so the same call gives the same returns.
    """
    env = make_configured(config)
    try:
        env.action_space.seed(0)
        return np.array([_episode(env, seed, config.max_eval_steps) for seed in range(episodes)])
    finally:
        env.close()


def _episode(env: Any, seed: int, max_steps: int) -> float:
    env.reset(seed=seed)
    total = 0.0
    for _ in range(max_steps):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        if terminated or truncated:
            break
    return total
