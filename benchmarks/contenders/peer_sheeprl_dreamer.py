"""sheeprl's Dreamer v1 as its user runs it, on its dummy environment: its `main`, whose first update is repeated."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter


def train(work: Work, meter: Meter) -> None:
    """The contender."""
    import torch
    from sheeprl import cli
    from sheeprl.algos.dreamer_v1 import dreamer_v1

    update = dreamer_v1.train

    def repeated(*args: Any, **kwargs: Any) -> None:
        meter.started()
        while True:
            update(*args, **kwargs)
            meter.tick()

    dreamer_v1.train = repeated
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it writes its logs and checkpoints
        sys.argv = [
            "sheeprl",
            "exp=dreamer_v1",
            "env=dummy",
            "env.id=continuous_dummy",
            "env.num_envs=1",
            "env.sync_env=True",
            "env.capture_video=False",
            "fabric.accelerator=cpu",
            f"fabric.precision={work.precision}",
            f"num_threads={work.threads}",
            "buffer.size=1000",
            "buffer.memmap=False",
            "algo.total_steps=1000",
            "algo.learning_starts=100",
            "algo.per_rank_pretrain_steps=1",
            "algo.cnn_keys.encoder=[rgb]",
            "algo.mlp_keys.encoder=[]",
        ]
        torch.set_num_threads(work.threads)
        cli.run()
