"""Defines the work of every contender of a comparison: the same sizes, the same number of updates, the same threads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Work:
    """Rounds of updates of an algorithm on a task; a round follows on `frames_per_round` environment steps.

    Attributes:
        algorithm: `"sac"`, `"td3"`, `"ddpg"` or `"ppo"`; of lit_mbrl any name of a file in `conf/`, without its ending.
        env: Gymnasium's id.
        hidden: hidden layers of actor and critics, ReLU; None: the config's (lit_mbrl only).
        batch_size: transitions per round; None: the config's (lit_mbrl only).
        lr: Adam's learning rate everywhere; None: the config's (lit_mbrl only).
        threads: of torch.
        num_envs: environments side by side, all stepped before the next.
        frames_per_round: environment steps of all of them between two rounds; a multiple of `num_envs`. Of PPO those of
            a rollout, and a round is all that follows on it.
        learning_starts: environment steps with random actions before the first round.
        compile: compile the round.
        options: further options of `python -m lit_mbrl fit` (lit_mbrl only).
        precision: of Lightning's (`"32-true"`, `"bf16-mixed"`); Dreamer only.
        wandb: keep W&B's logger as by default, which is offline without a key (lit_mbrl only).
    """

    algorithm: str = "sac"
    env: str = "Pendulum-v1"
    hidden: tuple[int, ...] | None = (256, 256)
    batch_size: int | None = 256
    lr: float | None = 3e-4
    threads: int = 2
    num_envs: int = 1
    frames_per_round: int = 1
    learning_starts: int = 1000
    capacity: int = 100_000
    compile: bool = False
    options: tuple[str, ...] = ()
    precision: str = "32-true"
    wandb: bool = True

    def dumps(self) -> str:
        """As JSON, for a process of its own."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def loads(text: str) -> Work:
        """Reads the output of `dumps`."""
        content = json.loads(text)
        for name in ("hidden", "options"):
            content[name] = None if content[name] is None else tuple(content[name])
        return Work(**content)
