"""PPO with IMPALA's network on Procgen's FruitBot: frames per second of lit_mbrl and of Stable-Baselines3, in turns.

    python -m benchmarks.studies.fruitbot [--pairs 3] [--rollouts 1] [--threads 2]
    python -m benchmarks.studies.fruitbot --network

Equal settings: 16 environments, rollouts of 64 steps, 3 epochs of minibatches of 256 frames, the same pools of games.
Stable-Baselines3 has the network as it is usually written, in float32 and with the channels first; lit_mbrl has it as
conf/fruitbot/ppo.yaml does, channels last and bfloat16 where it is exact enough, and a third contender, float32, shows
what the number format is worth. Needs the extras `procgen` and `peers`.

The second command takes the network alone, on one thread, and counts frames per second of processor time, which other
programs disturb less.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from benchmarks.contenders.ours import Ticks, fit
from benchmarks.harness.pairs import interleave, ratios, spread
from benchmarks.harness.report import Table, origin
from benchmarks.harness.work import ROOT, Work
from benchmarks.harness.worker import Contender, Meter

ENVS, STEPS, EPOCHS, BATCH = 16, 64, 3, 256
FRAMES = ENVS * STEPS
OURS, FLOAT32, SB3 = "lit_mbrl", "lit_mbrl, float32", "Stable-Baselines3"


class Rollouts(Ticks):
    """Counts rollouts with all of their minibatches, where the others' unit is a minibatch."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """A round is over."""
        if pl_module.train_steps % (EPOCHS * FRAMES // BATCH) == 0:
            self.meter.tick()


def train_ours(work: Work, meter: Meter) -> None:
    """`python -m lit_mbrl fit`, with all that is on by default; evaluations are not timed."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"--num_threads={work.threads}",
            f"--data.env.num_envs={ENVS}",
            f"--data.rollout_steps={STEPS}",
            f"--data.num_epochs={EPOCHS}",
            f"--data.batch_size={BATCH}",
            "--data.total_frames=10_000_000",
            "--data.epoch_frames=1_000_000",
            "--trainer.accelerator=cpu",
            "--progress.enabled=false",
            f"--trainer.default_root_dir={folder}",
        ]
        config = str(ROOT / "conf" / "fruitbot" / "ppo.yaml")
        fit(["fit", "--config", config, *options, *work.options], Rollouts(meter))


def train_sb3(work: Work, meter: Meter) -> None:
    """`PPO.learn`, with a callback that counts."""
    import gymnasium as gym
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv

    from lit_mbrl.envs import EnvConfig
    from lit_mbrl.envs.tasks.procgen_games import ProcgenPool
    from lit_mbrl.networks import Impala

    torch.set_num_threads(work.threads)

    class Games(VecEnv):
        """The pool of games as Stable-Baselines3 wants it: it resets by itself and keeps the last observation."""

        def __init__(self) -> None:
            box = gym.spaces.Box(0, 255, (3, 64, 64), np.uint8)
            super().__init__(ENVS, box, gym.spaces.Discrete(15))
            self.pool = ProcgenPool(EnvConfig("procgen/fruitbot-easy", {"num_levels": 500}, num_envs=ENVS), ENVS)

        def reset(self) -> np.ndarray:
            return self.pool.reset(None, list(range(ENVS)))

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            observation, reward, terminated, truncated = self.pool.step(self.actions)
            done, infos = (terminated | truncated)[:, 0], [{} for _ in range(ENVS)]
            if done.any():
                for row in np.flatnonzero(done):
                    cut = bool(truncated[row, 0])
                    infos[row] = {"terminal_observation": observation[row].copy(), "TimeLimit.truncated": cut}
                first = self.pool.reset(done, [None] * ENVS)
                observation = np.where(done[:, None, None, None], first, observation)
            return observation, reward[:, 0], done, infos

        def close(self) -> None:
            self.pool.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * ENVS

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            raise NotImplementedError

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * ENVS

    class Extractor(BaseFeaturesExtractor):
        """The same layers."""

        def __init__(self, observation_space: gym.Space) -> None:
            super().__init__(observation_space, 256)
            self.network = Impala((3, 64, 64), channels_last=False)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.network(observations)

    class RolloutTicks(BaseCallback):
        """A rollout begins when the training on the last one is over."""

        rollouts = 0

        def _on_rollout_start(self) -> None:
            if self.rollouts:
                meter.tick()
            self.rollouts += 1

        def _on_step(self) -> bool:
            meter.started()
            return True

    agent = PPO(
        "CnnPolicy",
        Games(),
        learning_rate=5e-4,
        n_steps=STEPS,
        batch_size=BATCH,
        n_epochs=EPOCHS,
        gamma=0.999,
        clip_range_vf=0.2,
        policy_kwargs={"features_extractor_class": Extractor, "net_arch": [], "normalize_images": False},
        seed=0,
        device="cpu",
    )
    agent.learn(sys.maxsize, callback=RolloutTicks())


def network(frames: int = 512, repeats: int = 3) -> Table:
    """Forward and backward passes of the network, in several formats; at last with freed memory kept."""
    from lit_mbrl.networks import Impala
    from lit_mbrl.utils.malloc import keep_freed_memory

    torch.set_num_threads(1)
    pictures = torch.randint(0, 256, (frames, 3, 64, 64), dtype=torch.uint8)

    def speed(channels_last: bool, half: bool, size: int) -> str:
        encoder, best = Impala((3, 64, 64), channels_last=channels_last), float("inf")
        for _ in range(repeats):
            start = time.process_time()
            for part in pictures.split(size):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    features = encoder(part)
                features.float().square().mean().backward()
            encoder.zero_grad()
            best = min(best, time.process_time() - start)
        return f"{frames / best:,.0f}"

    table = Table(
        "impala", f"IMPALA's network on {frames} pictures: frames per second of processor time", ["", "frames/s"]
    )
    for name, arguments in (
        ("float32, channels first", (False, False, frames)),
        ("float32, channels last", (True, False, frames)),
        ("bfloat16, channels last", (True, True, frames)),
        ("the same in passes of 128", (True, True, 128)),
    ):
        table.rows.append([name, speed(*arguments)])
    keep_freed_memory()
    for name, size in (("bfloat16, channels last, freed memory kept", frames), ("the same in passes of 128", 128)):
        table.rows.append([name, speed(True, True, size)])
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Runs and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.fruitbot", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs that a median is taken of")
    parser.add_argument("--rollouts", type=int, default=1, help=f"rollouts of {FRAMES} frames of each in a pair")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's threads, for everybody")
    parser.add_argument("--compiled", action="store_true", help="with a contender that compiles its rounds")
    parser.add_argument("--network", action="store_true", help="the network alone")
    args = parser.parse_args(argv)
    if args.network:
        table = network()
        table.origin = origin("python -m benchmarks.studies.fruitbot --network", 1)
        print(table.markdown())
        return
    works = {
        OURS: ("fruitbot", Work(threads=args.threads)),
        FLOAT32: ("fruitbot", Work(threads=args.threads, options=("--trainer.precision=32-true",))),
        SB3: ("sb3_fruitbot", Work(threads=args.threads)),
    }
    if args.compiled:
        works["lit_mbrl, compiled"] = ("fruitbot", Work(threads=args.threads, options=("--model.compile=true",)))
    with ExitStack() as stack:
        contenders = {}
        for name, (program, work) in works.items():
            contenders[name] = Contender(program, work)
            stack.callback(contenders[name].close)
            print(f"  {name}: ready after {contenders[name].ready():.1f} s", flush=True)
            contenders[name].turn(1)
        blocks = {name: contender.block(args.rollouts) for name, contender in contenders.items()}
        seconds = interleave(blocks, args.pairs, 1, lambda line: print(f"  {line}", flush=True))
    frames = args.rollouts * FRAMES
    table = Table("fruitbot", "PPO with IMPALA's network on FruitBot", ["", "frames per second", f"beside {SB3}"])
    for name, values in seconds.items():
        speed = spread([frames / value for value in values])
        table.rows.append([name, str(speed), str(ratios(seconds[SB3], values))])
    given = " ".join(sys.argv[1:] if argv is None else argv)
    table.origin = origin(f"python -m benchmarks.studies.fruitbot {given}".strip(), args.threads)
    print("\n" + table.markdown())


if __name__ == "__main__":
    main()
