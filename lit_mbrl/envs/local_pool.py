"""Several copies of an environment stepped one after the other in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from lit_mbrl.envs.check import check_env
from lit_mbrl.envs.guard import EnvFailed, guard_of, watched
from lit_mbrl.envs.make import make_configured, make_spec, spec_of
from lit_mbrl.envs.spec import EnvConfig
from lit_mbrl.envs.state import get_state, set_state
from lit_mbrl.envs.transition import Transition

_LOG = logging.getLogger(__name__)


class LocalPool:
    """`count` copies of an environment in this process.

    Args:
        config: which environment, or which several.
        count: copies.
        first: number of the first of these copies among all, where they are a worker's.
    """

    def __init__(self, config: EnvConfig, count: int, first: int | None = None) -> None:
        self._envs: list[gym.Env] = []
        try:
            for i in range(first or 0, (first or 0) + count):
                self._envs.append(make_configured(config.of_copy(i)))
                if config.num_envs > 1:
                    guard_of(self._envs[-1]).copy = i
            alone = first is not None or not config.other_tasks
            self.spec = spec_of(self._envs[0], config.name) if alone else make_spec(config)
        except BaseException:
            self.close()
            raise
        self._first_action = int(self._envs[0].action_space.start) if self.spec.discrete else 0
        self._observation_shape = (count, *self.spec.observation_shape)
        self._observation_dtype = np.uint8 if self.spec.pixels else np.float32
        self._flag_shape = (count, 1)
        # Of an action of several tasks each takes what it has a use for.
        self._used = [slice(np.prod(env.action_space.shape, dtype=int)) for env in self._envs]

    def reset(self, mask: np.ndarray | None, seeds: Sequence[int | None]) -> np.ndarray:
        """Starts new episodes where `mask` [n] is True (everywhere if None); a seed that is not None reseeds that copy.

        Returns:
            Observations [n, O], of images [n, C, H, W]; zero for the copies that were not reset.
        """
        observation = np.zeros(self._observation_shape, self._observation_dtype)
        with np.errstate(over="ignore"):  # what is infinite in float32 is told with what is infinite anyway
            for i, env in enumerate(self._envs):
                if mask is None or mask[i]:
                    observation[i] = env.reset(seed=seeds[i])[0]
        return observation

    def step(self, actions: np.ndarray, mask: np.ndarray | None = None) -> Transition:
        """Steps every copy, or those where `mask` [n] is True, with its row of `actions`, [n, A] or [n] indices."""
        out = Transition(
            np.zeros(self._observation_shape, self._observation_dtype),
            np.zeros(self._flag_shape, np.float32),
            np.zeros(self._flag_shape, np.bool_),
            np.zeros(self._flag_shape, np.bool_),
        )
        observation, reward, terminated, truncated = out
        with np.errstate(over="ignore"):
            for i, env in enumerate(self._envs):
                if mask is not None and not mask[i]:
                    continue
                # A copy, or an environment that works in place would change what the policy is said to have done.
                action = (
                    int(actions[i]) + self._first_action if self.spec.discrete else actions[i, self._used[i]].copy()
                )
                observation[i], reward[i, 0], terminated[i, 0], truncated[i, 0], _ = env.step(action)
        return out

    def episode_steps(self) -> list[int]:
        """Steps of each copy in its running episode."""
        return [guard_of(env).steps for env in self._envs]

    def restarted(self) -> dict[int, np.ndarray]:
        """None: these copies live and die with this process."""
        return {}

    @property
    def envs(self) -> list[gym.Env]:
        """The copies."""
        return self._envs

    def check(self) -> tuple[str, ...]:
        """`check.check_env` of the first copy."""
        return check_env(self._envs[0])

    def get_state(self) -> list[dict[str, Any] | None]:
        """`state.get_state` of every copy."""
        return [self._watched(env, lambda env=env: get_state(env), "its state") for env in self._envs]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """`state.set_state` of every copy."""
        for env, state in zip(self._envs, states, strict=True):
            self._watched(env, lambda env=env, state=state: set_state(env, state), "its saved state")

    def close(self) -> None:
        """Closes every copy; one that cannot be closed is warned of, and left."""
        while self._envs:
            try:
                self._envs.pop().close()
            except EnvFailed as error:
                _LOG.warning("warning: %s", error)

    @staticmethod
    def _watched(env: gym.Env, function: Callable[[], Any], where: str) -> Any:
        guard = guard_of(env)
        return watched(function, guard.name, lambda: where, guard.timeout)
