"""One step of the agent for several of the environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lit_mbrl.envs.state import StatefulWrapper


class ActionRepeat(StatefulWrapper):
    """Repeats each action, adds up the rewards and stops where the episode does.

    Args:
        env: the environment.
        repeat: its steps per step of the agent.
    """

    def __init__(self, env: gym.Env, repeat: int) -> None:
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Gymnasium's step: the last observation, and the sum of the rewards."""
        total = 0.0
        for _ in range(self.repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info
