"""Misbehaving environments: one line before a run begins or with the step during it, and no waiting for ever."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from lit_mbrl.envs import EnvConfig, VectorEnv, describe, make_gym
from lit_mbrl.envs.guard import EnvFailed, guard_of
from lit_mbrl.utils.errors import OptionError
from tests.helpers.misbehaving import MISBEHAVING, OUTCOMES

PROBLEMS = {
    "nan_observation": "its observation is nan at index 1",
    "infinite_observation": "its observation is -inf at index 2",
    "wide_observation": "its observation has shape [4], not [3] as its observation_space says",
    "row_observation": "its observation has shape [1, 3], not [3] as its observation_space says",
    "scalar_observation": "its observation is of type float32, not a numpy array",
    "complex_observation": "its observation is of complex64, not float32 as its observation_space says",
    "text_observation": "its observation is of <U1, not float32 as its observation_space says",
    "list_observation": "its observation is a list of 3, not a numpy array",
    "no_observation": "its observation is None, not a numpy array",
    "nan_reward": "its reward is nan",
    "infinite_reward": "its reward is inf",
    "huge_reward": "its reward is inf",
    "array_reward": "its reward is an array of shape [1], not a number",
    "no_reward": "its reward is None, not a number",
    "text_reward": "its reward is of type str, not a number",
    "complex_reward": "its reward is of type complex, not a number",
    "bool_reward": "its reward is of type bool, not a number",
    "int_terminated": "its terminated is of type int, not true or false",
    "array_terminated": "its terminated is an array of shape [1], not true or false",
    "no_truncated": "its truncated is None, not true or false",
    "no_info": "its info is None, not a dict",
    "four": "it returned a tuple of 4, not (observation, reward, terminated, truncated, info)",
    "fail": "it raised ValueError: the simulator is on fire",
    "fail_to_write": "it raised OSError: [Errno 28] No space left on device: '/sim/cache'",
    "fail_strangely": "it raised Strange: strange",
    "exit": "it called sys.exit(0)",
}


def misbehaving(**kwargs: Any) -> EnvConfig:
    """The environment with a fault."""
    timeout = kwargs.pop("timeout", 300.0)
    return EnvConfig(MISBEHAVING, kwargs, timeout=timeout)


def test_no_fault_is_without_a_test() -> None:
    assert set(OUTCOMES) < set(PROBLEMS)


@pytest.mark.parametrize(("fault", "problem"), PROBLEMS.items())
def test_a_fault_is_found_before_the_run_and_during_it(fault: str, problem: str) -> None:
    with pytest.raises(OptionError) as refused:
        describe(misbehaving(fault=fault))
    line = f"--data.env.name={MISBEHAVING}: expected an environment that works, but (step 1 of an episode) {problem}"
    assert str(refused.value) == line
    env = VectorEnv(misbehaving(fault=fault, at=2, length=2), seed=0)  # so the third step is the second episode's first
    td = env.reset()
    with pytest.raises(EnvFailed) as failed:
        for _ in range(3):
            _, td = env.step_and_maybe_reset(td.set("action", torch.zeros(1, 2)))
    assert str(failed.value) == f"{MISBEHAVING}, step 1 of an episode: {problem}"
    assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)
    env.close()


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("bare", "it returned an array of shape [3], not (observation, info)"),
        ("no_info", "its info is None, not a dict"),
        *((fault, PROBLEMS[fault]) for fault in ("nan_observation", "wide_observation", "text_observation", "exit")),
    ],
)
def test_a_fault_of_a_reset(fault: str, problem: str) -> None:
    with pytest.raises(OptionError, match="reset") as refused:
        describe(misbehaving(fault=fault, where="reset"))
    assert str(refused.value).endswith(f"(reset) {problem}")
    env = VectorEnv(misbehaving(fault=fault, where="reset", at=1), seed=0)
    env.reset()
    with pytest.raises(EnvFailed) as failed:
        env.reset()
    env.close()
    assert str(failed.value) == f"{MISBEHAVING}, reset: {problem}"


@pytest.mark.parametrize(("where", "call"), [("init", "constructor"), ("close", "close")])
def test_a_constructor_and_a_close_that_raise(where: str, call: str) -> None:
    with pytest.raises(OptionError, match=rf"but \({call}\) it called sys.exit\(0\)$"):
        describe(misbehaving(fault="exit", where=where))


def test_the_death_of_a_worker_in_the_check_is_not_that_of_the_program() -> None:
    config = misbehaving(fault="die")
    config.workers = True
    with pytest.raises(OptionError, match=r"that works, but its environment worker 0 .* died with exit code 3$"):
        describe(config)


def test_a_close_that_raises_is_a_warning_when_the_work_is_done(caplog: pytest.LogCaptureFixture) -> None:
    env = VectorEnv(misbehaving(fault="fail", where="close"), seed=0)
    env.close()
    assert "close: it raised ValueError: the simulator is on fire" in caplog.text


# ---------------------------------------------------------------------- time
@pytest.mark.parametrize("where", ["init", "reset", "step", "close"])
def test_what_never_returns_is_refused(where: str) -> None:
    start = time.monotonic()
    with pytest.raises(OptionError, match=r"it did not return within 0\.5 s \(data\.env\.timeout\)$"):
        describe(misbehaving(fault="sleep", where=where, timeout=0.5))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("workers", [False, True])
def test_a_step_that_never_returns(workers: bool) -> None:
    config = misbehaving(fault="sleep", at=10, timeout=0.5)
    config.workers = workers
    env = VectorEnv(config, seed=0)
    td = env.reset()
    with pytest.raises(EnvFailed, match=r"step 11 of an episode: it did not return within 0\.5 s"):
        for _ in range(11):
            _, td = env.step_and_maybe_reset(td.set("action", torch.zeros(1, 2)))
    env.close()


def test_what_cannot_be_interrupted_ends_the_process() -> None:
    """It catches every exception, so nothing else is left."""
    code = (
        "from lit_mbrl.envs import EnvConfig, describe\n"
        "from lit_mbrl.utils import overdue\n"
        "overdue._LAST_SECONDS = 0.5\n"
        "overdue.WATCH.last_words = lambda: 'all is saved'\n"
        f"describe(EnvConfig('{MISBEHAVING}', {{'fault': 'sleep_deaf'}}, timeout=0.5))\n"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    line = f"error: {MISBEHAVING}, step 1 of an episode did not return within 0.5 s, and cannot be interrupted"
    assert (done.returncode, done.stderr) == (1, f"{line}; all is saved\n")


def test_a_process_that_a_step_forks_does_not_go_on_with_the_run(tmp_path: Any) -> None:
    env = make_gym(MISBEHAVING, fault="fork")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    (tmp_path / str(os.getpid())).touch()
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------------- what is no fault
def test_other_floats_are_a_remark() -> None:
    class Double(gym.Env):
        observation_space, action_space = Box(-1.0, 1.0, (2,), np.float32), Box(-1.0, 1.0, (1,), np.float32)

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
            return np.zeros(2), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, Any, bool, dict]:
            action *= 2  # its own, and nobody else's
            return np.ones(2), np.int64(1), np.bool_(False), False, {}

    if "Double-v0" not in gym.registry:
        gym.register("Double-v0", entry_point=Double)
    spec = describe(EnvConfig("Double-v0"))
    what = "observations are of float64, not float32 as its observation_space says, and are converted"
    assert spec.remarks == (f"Double-v0: {what}",)
    env = VectorEnv(EnvConfig("Double-v0"), seed=0)
    td = env.reset().set("action", torch.ones(1, 1))
    assert env.step(td)["next", "reward"].item() == 1.0 and td["action"].item() == 1.0
    env.close()


def test_the_check_leaves_random_numbers_alone() -> None:
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    describe(EnvConfig("Pendulum-v1"))
    assert np.random.get_state()[1].tolist() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_the_step_of_the_episode_is_part_of_the_state() -> None:
    first, second = (VectorEnv(misbehaving(), seed=0) for _ in range(2))
    td = first.reset()
    for _ in range(3):
        first.step(td.set("action", torch.zeros(1, 2)))
    second.reset()
    second.set_env_state(first.get_env_state())
    assert guard_of(second._pool.envs[0]).steps == 3
