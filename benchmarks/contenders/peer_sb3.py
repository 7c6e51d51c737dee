"""Stable-Baselines3 as its user runs it: `model.learn`, with a callback that counts."""

from __future__ import annotations

import sys

import torch

from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter


def train(work: Work, meter: Meter) -> None:
    """The contender."""
    from stable_baselines3 import DDPG, PPO, SAC, TD3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(work.threads)
    steps = work.frames_per_round // work.num_envs  # of the vector of environments

    class Ticks(BaseCallback):
        """Counts vector steps after the warm-up; the round that belongs to a step follows on it."""

        count = 0

        def _on_step(self) -> bool:
            meter.started()
            if self.num_timesteps > work.learning_starts:
                if self.count and self.count % steps == 0:
                    meter.tick()
                self.count += 1
            return True

    class Rollouts(BaseCallback):
        """Counts rollouts, each when its updates are over and the next one begins."""

        def _on_step(self) -> bool:
            meter.started()
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                meter.tick()

    if work.algorithm == "ppo":
        ppo = PPO(
            "MlpPolicy",
            make_vec_env(work.env, work.num_envs),
            learning_rate=work.lr,
            n_steps=steps,
            batch_size=work.batch_size,
            policy_kwargs={"net_arch": list(work.hidden or ())},
            seed=0,
            device="cpu",
        )
        ppo.learn(sys.maxsize, callback=Rollouts())
        return
    agent = {"sac": SAC, "td3": TD3, "ddpg": DDPG}[work.algorithm](
        "MlpPolicy",
        make_vec_env(work.env, work.num_envs),
        learning_rate=work.lr,
        buffer_size=work.capacity,
        learning_starts=work.learning_starts,
        batch_size=work.batch_size,
        train_freq=(steps, "step"),
        gradient_steps=1,
        policy_kwargs={"net_arch": list(work.hidden or ())},
        seed=0,
        device="cpu",
    )
    agent.learn(sys.maxsize, callback=Ticks())
