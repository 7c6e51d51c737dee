"""Returns of SAC, TD3, DDPG and PPO beside Stable-Baselines3's, with the same hyper-parameters and steps.

    pip install -e '.[peers]'
    python -m benchmarks.studies.returns_against_sb3 --steps 10000 --seeds 3
    python -m benchmarks.studies.returns_against_sb3 --algorithms ppo --envs CartPole-v1 --steps 51200 --seeds 3

PPO has Stable-Baselines3's defaults with 8 environments: rollouts of 8 x 256 steps, 10 epochs of minibatches of 64. Its
actions are scaled here and not there, so tasks should be bounded by [-1, 1].

Each run has one thread; `--jobs` of them run side by side. A run's figure is the mean of the deterministic evaluations
(10 episodes each) at 80, 90 and 100 % of its steps; the table gives mean and standard deviation over seeds. Results are
appended to a JSON-lines file, and runs that are in it are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

WARMUP, EPISODES = 1000, 10
COPIES, ROLLOUT = 8, 256  # of PPO


def run_lit_mbrl(algorithm: str, env: str, steps: int, seed: int) -> list[float]:
    """Trains with this library; returns the evaluations' mean returns."""
    import logging

    from lightning.pytorch import Callback, Trainer, seed_everything

    from lit_mbrl.algorithms import DDPG, PPO, SAC, TD3
    from lit_mbrl.callbacks import SoftTargetUpdate
    from lit_mbrl.data import OffPolicy, OnPolicy
    from lit_mbrl.envs import EnvConfig

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    noise = {"exploration": "gaussian", "exploration_sigma": 0.1}
    models = {
        "sac": lambda: SAC(log_std_bounds=(-20.0, 2.0), log_std_squash="clamp"),
        "td3": lambda: TD3(actor_lr=1e-3, critic_lr=1e-3, **noise),
        "ddpg": lambda: DDPG(actor_lr=1e-3, critic_lr=1e-3, **noise),
        "ppo": lambda: PPO(hidden_sizes=[64, 64], lr=3e-4),
    }
    returns = []

    class Collect(Callback):
        def on_validation_end(self, trainer, pl_module):
            returns.append(float(trainer.callback_metrics["eval/return"]))

    seed_everything(seed, verbose=False)
    if algorithm == "ppo":
        sizes = {"rollout_steps": ROLLOUT, "num_epochs": 10, "batch_size": 64}
        kind, config = OnPolicy, EnvConfig(env, num_envs=COPIES)
    else:
        sizes = {"learning_starts": WARMUP, "batch_size": 256}
        kind, config = OffPolicy, EnvConfig(env)
    data = kind(config, total_frames=steps, epoch_frames=steps // 10, eval_episodes=EPISODES, **sizes)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[SoftTargetUpdate(tau=0.005, period=2 if algorithm == "td3" else 1), Collect()],
    )
    trainer.fit(models[algorithm](), data)
    return returns[-3:]


def run_sb3(algorithm: str, env: str, steps: int, seed: int) -> list[float]:
    """Trains with Stable-Baselines3; returns the evaluations' mean returns."""
    import gymnasium
    import numpy as np
    from stable_baselines3 import DDPG, PPO, SAC, TD3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.noise import NormalActionNoise

    training, evaluation = gymnasium.make(env), gymnasium.make(env)
    common = {
        "policy": "MlpPolicy",
        "env": training,
        "learning_starts": WARMUP,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": [256, 256]},
        "seed": seed,
        "device": "cpu",
    }
    if algorithm == "ppo":
        copies = make_vec_env(env, COPIES, seed=seed)
        agent = PPO("MlpPolicy", copies, 3e-4, n_steps=ROLLOUT, batch_size=64, n_epochs=10, seed=seed, device="cpu")
    elif algorithm == "sac":
        agent = SAC(learning_rate=3e-4, ent_coef="auto_1.0", **common)
    else:
        actions = training.action_space.shape[0]
        noise = NormalActionNoise(np.zeros(actions), 0.1 * np.ones(actions))
        agent = {"td3": TD3, "ddpg": DDPG}[algorithm](learning_rate=1e-3, action_noise=noise, **common)
    returns = []

    class Collect(BaseCallback):
        def _on_rollout_start(self) -> None:
            """PPO learns after its rollouts, at whose ends it is evaluated by us."""
            done = self.num_timesteps
            if algorithm == "ppo" and any(
                done <= share * steps // 10 < done + COPIES * ROLLOUT for share in (8, 9, 10) if done
            ):
                self.evaluate()

        def _on_training_end(self) -> None:
            if algorithm == "ppo":
                self.evaluate()

        def _on_step(self) -> bool:
            if algorithm != "ppo" and self.num_timesteps in (steps * 8 // 10, steps * 9 // 10, steps):
                self.evaluate()
            return True

        def evaluate(self) -> None:
            evaluation.reset(seed=seed + 1000 * self.num_timesteps)
            returns.append(evaluate_policy(agent, evaluation, EPISODES, warn=False)[0])

    agent.learn(steps, callback=Collect())
    return [float(value) for value in returns[-3:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["sac", "td3", "ddpg"])
    parser.add_argument("--envs", nargs="+", default=["Pendulum-v1", "HalfCheetah-v5"])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/returns_against_sb3.jsonl"))
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        import torch

        torch.set_num_threads(1)
        library, algorithm, env, steps, seed = args.one
        run = {"lit_mbrl": run_lit_mbrl, "sb3": run_sb3}[library]
        print(json.dumps(run(algorithm, env, int(steps), int(seed))))
        return

    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            done[tuple(row["run"])] = row["returns"]
    runs = [
        (library, algorithm, env, str(args.steps), str(seed))
        for env in args.envs
        for seed in range(args.seeds)
        for algorithm in args.algorithms
        for library in ("lit_mbrl", "sb3")
    ]

    def execute(run: tuple[str, ...]) -> None:
        if run in done:
            return
        command = [sys.executable, "-W", "ignore", __file__, "--one", *run]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        done[run] = json.loads(result.stdout.splitlines()[-1])
        with args.out.open("a") as file:
            file.write(json.dumps({"run": run, "returns": done[run]}) + "\n")
        print(*run, [round(value, 1) for value in done[run]], flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(execute, runs))
    print(f"\n| task, {args.steps} steps | algorithm | lit_mbrl | Stable-Baselines3 |\n|---|---|---|---|")
    for env in args.envs:
        for algorithm in args.algorithms:
            cells = []
            for library in ("lit_mbrl", "sb3"):
                seeds = [mean(done[library, algorithm, env, str(args.steps), str(s)]) for s in range(args.seeds)]
                cells.append(f"{mean(seeds):.0f} ± {stdev(seeds) if len(seeds) > 1 else 0:.0f}")
            print(f"| {env} | {algorithm.upper()} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
