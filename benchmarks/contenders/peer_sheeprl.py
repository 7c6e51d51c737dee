"""sheeprl as its user runs it: its command line's composition of options, and its `main`, whose training step counts.

It has its own pins, so it may live in an environment of its own: `python -m benchmarks --sheeprl /path/to/its/python`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter


def train(work: Work, meter: Meter) -> None:
    """The contender; SAC only, one environment per round, which is what it is compared in."""
    import torch
    from sheeprl import cli
    from sheeprl.algos.sac import sac

    round_of_sheeprl = sac.train

    def counted(*args: Any, **kwargs: Any) -> None:
        round_of_sheeprl(*args, **kwargs)
        meter.tick()

    sac.train = counted
    make_env = sac.make_env

    def noticed(*args: Any, **kwargs: Any) -> Any:
        make = make_env(*args, **kwargs)

        def started() -> Any:
            env = make()
            step = env.step

            def first(action: Any) -> Any:
                result = step(action)
                meter.started()
                env.step = step
                return result

            env.step = first
            return env

        return started

    sac.make_env = noticed
    size = (work.hidden or (256,))[0]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it writes its logs and checkpoints
        sys.argv = [
            "sheeprl",
            "exp=sac",
            f"env.id={work.env}",
            "env=gym",
            "env.num_envs=1",
            "env.sync_env=True",
            "env.capture_video=False",
            "fabric.accelerator=cpu",
            f"num_threads={work.threads}",
            f"buffer.size={work.capacity}",
            "algo.total_steps=1000000",
            f"algo.learning_starts={work.learning_starts}",
            f"algo.per_rank_batch_size={work.batch_size}",
            "algo.replay_ratio=1",
            f"algo.hidden_size={size}",
            f"algo.actor.optimizer.lr={work.lr}",
            f"algo.critic.optimizer.lr={work.lr}",
            f"algo.alpha.optimizer.lr={work.lr}",
            "algo.mlp_keys.encoder=[state]",
        ]
        torch.set_num_threads(work.threads)
        cli.run()
