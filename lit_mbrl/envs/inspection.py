"""Inspects an environment before a run depends on it."""

from __future__ import annotations

import gymnasium as gym

from lit_mbrl.envs.check import check_env
from lit_mbrl.envs.make import make_spec
from lit_mbrl.envs.pool import check_in_worker
from lit_mbrl.envs.spec import EnvConfig, Spec


def describe(config: EnvConfig) -> Spec:
    """Makes the environment, or each of several, once, looks at a few of its steps, and closes it.

    With `workers` the steps are a worker's, which may die of them.

    Raises:
        OptionError: as `make.make_spec`; or if it does not do what Gymnasium asks of an environment
            (`check.check_env`).
    """
    return make_spec(config, _check)


def _check(env: gym.Env, config: EnvConfig) -> tuple[str, ...]:
    return check_in_worker(config) if config.workers else check_env(env)
