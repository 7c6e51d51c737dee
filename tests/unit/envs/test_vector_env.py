"""VectorEnv: specs, seeds, episode ends, workers, and the transitions that a TorchRL collector makes of them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext

import pytest
import torch
from torchrl.collectors import Collector
from torchrl.envs.utils import check_env_specs

from lit_mbrl.envs import EnvConfig, VectorEnv, make_gym
from lit_mbrl.envs.guard import EnvFailed
from lit_mbrl.utils.errors import OptionError, TrainingError
from tests.helpers.toys import FAULTY, TOY


def _actions(env: VectorEnv, steps: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, *env.action_spec.shape, generator=generator) * 2 - 1


def _rollout(env: VectorEnv, steps: int):
    """Steps with resets; [N, steps]."""
    td, out = env.reset(), []
    for action in _actions(env, steps):
        step, td = env.step_and_maybe_reset(td.set("action", action))
        out.append(step)
    return torch.stack(out, 1)


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1", "mbpo/HumanoidTruncatedObs", TOY])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_specs_are_kept(name, num_envs):
    env = VectorEnv(EnvConfig(name), seed=0, num_envs=num_envs)
    check_env_specs(env)
    assert env.batch_size == (num_envs,)
    env.close()


@pytest.mark.parametrize("limit", [None, 2])
def test_terminated_and_truncated_stay_apart_and_the_last_observation_is_kept(limit):
    """Episodes of the toy end at their own random length, or are cut after two steps."""
    single = make_gym(TOY, max_episode_steps=limit)
    vector = VectorEnv(EnvConfig(TOY, max_episode_steps=limit, num_envs=3), seed=11)
    data = _rollout(vector, 40)
    ends = 0
    for i in range(3):
        observation, _ = single.reset(seed=11 + i)
        for t in range(40):
            assert data["observation"][i, t].tolist() == observation.tolist()
            assert data["is_init"][i, t].item() == (observation[1] == 0)
            observation, reward, terminated, truncated, _ = single.step(data["action"][i, t].numpy())
            now = data["next"][i, t]
            assert now["observation"].tolist() == observation.tolist()
            assert now["reward"].item() == pytest.approx(reward)
            assert now["terminated"].item() == terminated == (observation[1] == observation[2])
            assert now["truncated"].item() == truncated == (limit is not None and observation[1] == limit)
            assert now["done"].item() == (terminated or truncated)
            assert not now["is_init"].item()
            if terminated or truncated:
                ends += 1
                observation, _ = single.reset()
    assert ends > 20
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any() == (limit is not None)


def test_seeds_decide_the_trajectories():
    config = EnvConfig("Hopper-v5", num_envs=2)
    first, again, other = (_rollout(VectorEnv(config, seed=s), 60) for s in (3, 3, 4))
    assert (first == again).all()
    assert not torch.equal(first["observation"], other["observation"])
    assert not torch.equal(first["observation"][0], first["observation"][1])
    assert torch.equal(
        first["observation"][1, 0], other["observation"][0, 0]
    )  # copy i of seed s is copy 0 of seed s + i


def test_set_seed_acts_at_the_next_reset():
    env = VectorEnv(EnvConfig("Pendulum-v1"), seed=0)
    first = env.reset()["observation"]
    second = env.reset()["observation"]
    assert not torch.equal(first, second)
    env.set_seed(0)
    assert torch.equal(env.reset()["observation"], first)


def test_workers_give_the_same_as_this_process():
    for name in (TOY, "mbpo/Hopper"):
        config = EnvConfig(name, num_envs=3)
        here = _rollout(VectorEnv(config, seed=5), 60)
        assert here["next", "done"].any()
        with_workers = VectorEnv(EnvConfig(name, num_envs=3, workers=True), seed=5)
        there = _rollout(with_workers, 60)
        with_workers.close()
        assert (here == there).all()


def test_discrete_actions_are_indices():
    env = VectorEnv(EnvConfig("CartPole-v1", num_envs=2), seed=0)
    assert env.action_spec.rand().shape == (2,)
    td = env.reset().set("action", torch.tensor([0, 1]))
    left, right = env.step(td)["next", "observation"][:, 1] - td["observation"][:, 1]
    assert left < 0 < right


def test_a_collector_gets_the_right_transitions():
    env = VectorEnv(EnvConfig(TOY, {"longest": 7}, num_envs=3), seed=2)
    collector = Collector(env, None, frames_per_batch=6, total_frames=120)
    data = torch.cat(list(collector), dim=1)
    collector.shutdown()
    assert data.batch_size == (3, 40)
    tag, t, length = data["observation"].unbind(-1)
    next_tag, next_t, next_length = data["next", "observation"].unbind(-1)
    assert torch.equal(next_tag, tag)
    assert torch.equal(next_t, t + 1)
    assert torch.equal(next_length, length)
    done = data["next", "done"].squeeze(-1)
    assert torch.equal(done, next_t == length)
    torch.testing.assert_close(data["next", "reward"], 2 * (data["action"] + 1))
    # What follows within a copy: the next observation, or the first one of another episode.
    assert torch.equal(data["observation"][:, 1:][~done[:, :-1]], data["next", "observation"][:, :-1][~done[:, :-1]])
    assert (t[:, 1:][done[:, :-1]] == 0).all()
    assert (tag[:, 1:][done[:, :-1]] != tag[:, :-1][done[:, :-1]]).all()
    assert torch.equal(data["is_init"].squeeze(-1), t == 0)
    assert len({tuple(row.tolist()) for row in length}) == 3


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_closing_ends_the_workers():
    env = VectorEnv(EnvConfig("Pendulum-v1", num_envs=2, workers=True), seed=0)
    pids = env._pool.pids
    assert pids
    assert not any(map(_gone, pids))
    env.close()
    env.close()
    assert all(map(_gone, pids))  # not even a zombie: its parent has waited for it


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads the libraries of a process from /proc")
def test_workers_do_not_load_torch():
    env = VectorEnv(EnvConfig("mbpo/HalfCheetah", workers=True), seed=0)
    env.reset()
    with open(f"/proc/{env._pool.pids[0]}/maps") as maps:
        libraries = maps.read()
    env.close()
    assert "libmujoco" in libraries
    assert "libtorch" not in libraries


@pytest.mark.parametrize("workers", [False, True])
def test_an_exception_of_an_environment_reaches_the_caller(workers):
    env = VectorEnv(EnvConfig(FAULTY, num_envs=2, workers=workers), seed=0)
    td = env.reset()
    with pytest.raises(EnvFailed, match="copy 1, step 1 of an episode: .*the action is too large$") as failed:
        env.step(td.clone().set("action", torch.tensor([[0.0], [1.0]])))
    assert failed.value.details.rstrip().endswith("ArithmeticError: the action is too large")
    assert env.step(td.set("action", torch.zeros(2, 1)))["next", "reward"].shape == (2, 1)  # still in step
    env.close()


def test_a_worker_that_keeps_dying_is_told():
    env = VectorEnv(EnvConfig(FAULTY, num_envs=2, workers=True), seed=0)
    td = env.reset()
    start = time.monotonic()
    message = r"environment worker \d \(process \d+\) died with exit code 3"
    with pytest.warns(RuntimeWarning, match=message) as warned, pytest.raises(TrainingError, match=message):
        env.step(td.set("action", torch.tensor([[0.0], [-1.0]])))
    assert [str(warning.message).split("; ")[1] for warning in warned] == [
        f"restart {count} of at most 3, with new episodes" for count in (1, 2, 3)
    ]
    env.close()
    assert time.monotonic() - start < 30


def test_after_a_worker_s_death_its_copies_begin_new_episodes():
    env = VectorEnv(EnvConfig(TOY, {"longest": 50}, num_envs=2, workers=True), seed=0)
    td = env.reset()
    frames = []
    for step in range(4):
        if step == 2:
            os.kill(env._pool.pids[-1], signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="exit code -9; restart 1") if step == 2 else nullcontext():
            frame, td = env.step_and_maybe_reset(td.set("action", torch.zeros(2, 1)))
        frames.append(frame)
    cuts = env.pop_truncations()
    # One worker per copy, or one for both on a single core.
    assert [cut[:2] for cut in cuts] in ([(2, 1)], [(2, 0), (2, 1)])
    assert env.pop_truncations() == []
    data = torch.stack(frames, 1)
    tag = data["next", "observation"][1, :, 0]
    assert data["next", "observation"][1, :, 1].tolist() == [1, 2, 1, 2]
    assert tag[0] == tag[1] != tag[2] == tag[3] == cuts[-1][2][0] and cuts[-1][2][1] == 0
    env.close()


def test_a_copy_that_is_reset_anyway_has_its_own_first_observation():
    env = VectorEnv(EnvConfig(TOY, num_envs=1, workers=True), seed=0)
    env.reset()
    os.kill(env._pool.pids[0], signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="exit code -9; restart 1"):
        td = env.reset()
    frame = env.step(td.set("action", torch.zeros(1, 1)))
    assert env.pop_truncations() == []
    assert frame["next", "observation"][0, 0] == td["observation"][0, 0]
    env.close()


@pytest.mark.parametrize("workers", [False, True])
def test_wrong_options_are_told_before_any_process_starts(workers):
    with pytest.raises(OptionError, match=r"^--data\.env\.name=Pendulm-v1"):
        VectorEnv(EnvConfig("Pendulm-v1", workers=workers), seed=0)
    with pytest.raises(OptionError, match=r"^--data\.env\.num_envs=0"):
        VectorEnv(EnvConfig("Pendulum-v1", workers=workers), seed=0, num_envs=0)
