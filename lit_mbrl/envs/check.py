"""A few steps of an environment before anything depends on it."""

from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from lit_mbrl.envs.finite import where_not_finite
from lit_mbrl.envs.guard import EnvFailed, guard_of

_STEPS = 4
_EPISODES = 2  # so that a reset after a step is seen, too


def check_env(env: gym.Env) -> tuple[str, ...]:
    """Resets an environment made by `make_configured` and steps it, with the action in the middle (or the first of n).

    What it returns is looked at by its `guard.Guard`; here, that it is finite. Random numbers of the process that the
    environment may use stay as they are.

    Returns:
        What is not as it should be, but does no harm.

    Raises:
        EnvFailed: if it raises, does not return, or returns what Gymnasium's interface does not allow.
    """
    guard, space = guard_of(env), env.action_space
    action: Any = int(space.start) if isinstance(space, Discrete) else np.zeros(space.shape or (), np.float32)
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        for episode in range(_EPISODES):
            observation, _ = env.reset(seed=episode)
            _require_finite(guard.name, "reset", observation, 0.0)
            for step in range(1, _STEPS + 1):
                observation, reward, terminated, truncated, _ = env.step(action)
                _require_finite(guard.name, f"step {step} of an episode", observation, reward)
                if terminated or truncated:
                    break
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
    return tuple(guard.remarks)


def _require_finite(name: str, where: str, observation: Any, reward: Any) -> None:
    with np.errstate(over="ignore"):
        problem = where_not_finite(np.asarray(observation), np.float32(reward))
    if problem is not None:
        raise EnvFailed(name, where, problem)
