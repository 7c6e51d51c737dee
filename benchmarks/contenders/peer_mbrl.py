"""mbrl-lib's MBPO as its user runs it: its `train`, with the options that its package ships for the inverted pendulum.

It is written for old releases of Hydra and Gymnasium, so it may live in an environment of its own: `python -m
benchmarks --mbrl /path/to/its/python`. What is changed here are sizes, numbers of updates, and what newer releases of
those two ask for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.work import Work
from benchmarks.harness.worker import Meter

# Environment steps between two fits of the model, which are followed by as many rounds of updates.
PERIOD = 250


def options(work: Work, epochs: int, updates: int) -> dict[str, Any]:
    """mbrl-lib's options, which replace those of its files.

    Args:
        work: sizes.
        epochs: of every fit.
        updates: of SAC per environment step.
    """
    return {
        "seed": 0,
        "device": "cpu",
        "log_frequency_agent": 1000,
        "algorithm": {
            "real_data_ratio": 0.0,
            "initial_exploration_steps": work.learning_starts - PERIOD,  # it fits for the first time a period later
            "agent": {"_recursive_": False},  # as Hydra did before 1.1
        },
        "dynamics_model": {"_recursive_": False},
        "overrides": {
            "env": f"gym___{work.env}",
            "num_steps": 10**6,
            "epoch_length": PERIOD,
            "freq_train_model": PERIOD,
            "num_epochs_train_model": epochs,
            "patience": epochs + 1,  # all of them
            "num_sac_updates_per_step": updates,
            "sac_hidden_size": (work.hidden or (256,))[0],
            "sac_batch_size": work.batch_size,
            "sac_lr": work.lr,
        },
    }


def train(work: Work, meter: Meter) -> None:
    """The contender; its evaluations are outside of the clock, as ours are."""
    import mbrl
    import omegaconf
    import torch
    from mbrl.algorithms import mbpo
    from mbrl.third_party.pytorch_sac_pranz24 import SAC
    from mbrl.util.env import EnvHandler

    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    update, evaluate, step = SAC.update_parameters, mbpo.evaluate, mbpo.mbrl.util.common.step_env_and_add_to_buffer

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = update(*args, **kwargs)
        meter.tick()
        return result

    def unclocked(*args: Any, **kwargs: Any) -> Any:
        meter.stop_clock()
        result = evaluate(*args, **kwargs)
        meter.start_clock()
        return result

    def noticed(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        meter.started()
        return result

    SAC.update_parameters, mbpo.evaluate = counted, unclocked
    mbpo.mbrl.util.common.step_env_and_add_to_buffer = noticed
    folder = Path(mbrl.__file__).parent / "examples" / "conf"
    shipped = {
        "algorithm": omegaconf.OmegaConf.load(folder / "algorithm" / "mbpo.yaml"),
        "dynamics_model": omegaconf.OmegaConf.load(folder / "dynamics_model" / "gaussian_mlp_ensemble.yaml"),
        "overrides": omegaconf.OmegaConf.load(folder / "overrides" / "mbpo_inv_pendulum.yaml"),
    }
    extra = dict(option.split("=") for option in work.options)
    own = options(work, int(extra["epochs"]), int(extra["updates"]))
    config = omegaconf.OmegaConf.merge(omegaconf.OmegaConf.create(shipped), own)
    env, termination, _ = EnvHandler.make_env(config)
    test_env, _, _ = EnvHandler.make_env(config)
    with tempfile.TemporaryDirectory() as work_dir:
        mbpo.train(env, test_env, termination, config, work_dir=work_dir)
