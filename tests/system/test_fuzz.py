"""Hundreds of wrong command lines and config files: one line on standard error, exit code 2, nothing left behind.

The fast suite takes a sample, always the same; the slow suite takes all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_mbrl.app.cli import CONF, main
from tests.helpers.command_line import NO_WANDB, tiny

SAMPLE = 60
NAN, INFINITE = "nan", "inf"

# Every option with values of a wrong type or out of its range.
INTEGER = ["abc", "1.5", "[1]", "{a: 1}", "null", "''"]
POSITIVE = [*INTEGER, "0", "-1"]
REAL = ["1e400", ".nan", "-.inf", "${oc.env:NOT_SET}", "${nope}"]  # infinities of YAML, and nothing at all
NUMBER = ["abc", "[1]", "{a: 1}", "null", "''", *REAL]
RATE = [*NUMBER, "0", "-0.1", NAN, INFINITE]
SHARE = [*NUMBER, "-0.1", "1.1", NAN, INFINITE]
FLAG = ["maybe", "2", "[true]", "null"]
SIZES = ["abc", "[a]", "[0]", "[-8]", "[1.5]", "3", "{a: 1}"]
OPTIONS: dict[str, dict[str, list[str]]] = {
    "sac": {
        "model.hidden_sizes": SIZES,
        "model.gamma": SHARE,
        "model.actor_lr": RATE,
        "model.critic_lr": RATE,
        "model.alpha_lr": RATE,
        "model.init_alpha": [*NUMBER, "-1", "0", NAN, INFINITE],
        "model.learn_alpha": FLAG,
        "model.target_entropy": ["abc", "[1]", "null", NAN, INFINITE, *REAL],
        "model.log_std_bounds": ["abc", "[1]", "[2,-5]", "[a,b]", "[1,2,3]", "[nan,1]", "null"],
        "model.log_std_squash": ["abc", "1", "null"],
        "model.orthogonal_init": FLAG,
        "model.normalize_observations": FLAG,
        "model.max_grad_norm": [value for value in RATE if value != "null"],
        "data.total_frames": [*POSITIVE, "10"],
        "data.epoch_frames": POSITIVE,
        "data.learning_starts": [*POSITIVE, "60"],
        "data.frames_per_batch": POSITIVE,
        "data.utd_ratio": RATE,
        "data.batch_size": POSITIVE,
        "data.sequence_batch_size": [value for value in POSITIVE if value != "null"],
        "data.capacity": [*POSITIVE],
        "data.storage": ["abc", "1"],
        "data.eval_episodes": POSITIVE,
        "data.env.name": ["''", "nope", "Pendulum-v9", "1", "null", "dmc/x", "dmc/walker-fly", "poplin/X", "a:b:c"],
        "data.env.num_envs": POSITIVE,
        "data.env.workers": FLAG,
        "data.env.max_episode_steps": [value for value in POSITIVE if value != "null"],
        "data.env.max_eval_steps": POSITIVE,
        "data.env.timeout": [value for value in RATE if value != "null"],
        "data.env.kwargs": ["1", "abc", "[1]", "{bogus: 1}", "{name: x}"],
        "trainer.callbacks.tau": SHARE,
        "trainer.callbacks.period": POSITIVE,
        "trainer.max_epochs": ["abc", "1.5", "[1]", "-7"],
        "trainer.gradient_clip_val": ["abc", "1", "[1]"],
        "trainer.accumulate_grad_batches": [*INTEGER, "2"],
        "trainer.min_steps": ["abc", "5", "[1]"],
        "trainer.max_steps": [*INTEGER, "5"],
        "trainer.val_check_interval": ["abc", "5", "0.5"],
        "trainer.limit_val_batches": ["abc", "0.5", "[1]"],
        "trainer.accelerator": ["abc", "1", "[cpu]"],
        "trainer.devices": ["abc", "0", "-3", "{a: 1}"],
        "trainer.strategy": ["abc", "[ddp]"],
        "trainer.precision": ["abc", "33", "[16]"],
        "trainer.log_every_n_steps": ["abc", "1.5", "-1"],
        "trainer.callbacks": ["abc", "1", "null", "[]"],
        "trainer.logger": ["abc", "[abc]", "1"],
        "checkpoint.every_epochs": POSITIVE,
        "checkpoint.mode": ["abc", "1", "null"],
        "progress.enabled": FLAG,
        "progress.refresh_seconds": [*NUMBER, "-1", NAN],
        "num_threads": ["abc", "1.5", "0", "-1", "[1]", "100000", "1e400"],
        "seed_everything": ["abc", "1.5", "-1", "[1]", "99999999999"],
        "non_finite": ["abc", "1", "null"],
        "ckpt_path": ["nope.ckpt", ".", "last", "best", "''", "x" * 300],
        "init_from": ["nope.ckpt", ".", "''", "x" * 300],
        "checkpoint.folder": [".", "..", "a/b", "/x", "replay", "x" * 300],
        "checkpoint.monitor": ["bogus", "eval/retrun", "''"],
    },
    "sac_svg": {
        "model.horizon": [*INTEGER, "-1"],
        "model.model_lr": RATE,
        "model.variant": ["abc", "1", "null"],
        "model.model_hidden_size": POSITIVE,
        "model.model_updates": POSITIVE,
    },
    "sac_svg_ensemble": {
        "model.world_model": ["abc", "1", "os.path", "SAC"],
        "model.world_model.num_members": [*POSITIVE, "4"],
        "model.world_model.num_elites": [*POSITIVE, "4", "6"],
        "model.world_model.hidden_sizes": ["abc", "1", "[0]", "[8.5]"],
        "model.world_model.weight_decay": ["abc", "[1e-4]", "[-1,1,1]"],
        "model.world_model.activation": ["abc", "1", "null"],
        "model.world_model.probabilistic": FLAG,
        "model.world_model.propagation": ["abc", "1", "null"],
        "model.world_model.termination": ["abc", "1", "null"],
        "model.world_model.lr": RATE,
        "model.world_model.member": ["3"],
        "model.model_hidden_size": ["64"],
        "model.gru_layers": ["1"],
    },
    "td3": {"model.policy_delay": POSITIVE},
    "pets": {
        "model.planner": ["abc", "1", "SAC", "os.path"],
        "model.planner.horizon": [*POSITIVE, "21"],
        "model.planner.num_candidates": POSITIVE,
        "model.planner.num_elites": [*POSITIVE, "9"],
        "model.planner.momentum": [*SHARE, "1"],
        "model.planner.min_variance": [*NUMBER, "-1"],
        "model.planner.bound": ["abc", "0", "-1"],
        "model.propagation": ["abc", "1", "TS2", "null"],
        "model.particles": ["abc", "1.5", "0", "3", "[5]"],
        "model.num_members": [*POSITIVE, "3"],
        "model.weight_decay": ["abc", "[1e-4]", "[-1,1,1]"],
        "model.model_epochs": POSITIVE,
        "model.model_batch_size": POSITIVE,
        "model.reward": ["abc", "1", "null"],
        "model.chunk": POSITIVE,
    },
    "pilco": {
        "model.horizon": [*POSITIVE, "11"],
        "model.angles": ["abc", "[4]", "[1,1]", "[-1]", "[1.5]", "[]"],
        "model.cost": ["abc", "1", "null", "[1]"],
        "model.cost.matrix": ["abc", "1", "[1]", "[[1,2]]", "[]"],
        "model.cost.target": ["abc", "[1]", "[1,2,3]"],
        "model.cost.width": [*NUMBER, "-1", "0"],
        "model.cost.action_weight": [*NUMBER, "-1"],
        "model.policy": ["abc", "1", "null"],
        "model.num_basis": POSITIVE,
        "model.policy_iterations": POSITIVE,
        "model.policy_restarts": POSITIVE,
        "model.first_restarts": POSITIVE,
        "model.model_iterations": POSITIVE,
        "model.model_restarts": POSITIVE,
        "model.initial_mean": ["abc", "[1]", "1"],
        "model.initial_std": ["abc", "[1]", "[-1,0,0,0]"],
        "model.max_points": POSITIVE,
        "model.max_signal_to_noise": [*NUMBER, "-1", "1"],
        "data.env.num_envs": ["2"],
    },
    "poplin_a": {"model.method": ["abc", "SEP", "1", "null"], "model.planner": ["lit_mbrl.planners.MPPI"]},
    "poplin_p": {
        "model.method": ["abc", "INIT", "null"],
        "model.distillation": ["abc", "1", "null"],
        "model.variant": ["abc", "1", "null"],
        "model.policy_hidden_sizes": ["abc", "1", "[0]", "[8.5]"],
        "model.policy_lr": RATE,
        "model.policy_epochs": POSITIVE,
        "model.policy_patience": [*INTEGER, "-1"],
        "model.policy_holdout": [*SHARE, "0", "1"],
        "model.planner.bound": ["1.0", "abc"],
    },
    "mbpo": {
        "model.model_batch_size": POSITIVE,
        "model.holdout_ratio": [*SHARE, "0", "1"],
        "model.max_holdout": POSITIVE,
        "model.model_improvement": SHARE,
        "model.model_patience": [*INTEGER, "-1"],
        "model.model_max_epochs": [value for value in POSITIVE if value != "null"],
        "model.model_train_freq": POSITIVE,
        "model.rollout_freq": [value for value in POSITIVE if value != "null"],
        "model.rollout_batch_size": [*POSITIVE, "1000000000000"],
        "model.rollout_schedule": ["abc", "3", "[1,2,3]", "[20,10,1,1]", "[0,10,0,1]", "[a,b,c,d]", "null"],
        "model.model_epoch": POSITIVE,
        "model.retain_epochs": POSITIVE,
        "model.real_ratio": [*SHARE, "1"],
    },
    "ppo": {
        "model.lmbda": SHARE,
        "model.lr": RATE,
        "model.anneal_lr": FLAG,
        "model.adam_eps": RATE,
        "model.clip_range": RATE,
        "model.value_clip_range": [value for value in RATE if value != "null"],
        "model.value_coeff": [*NUMBER, "-1", NAN],
        "model.max_grad_norm": [*NUMBER, "0", "-1", NAN],
        "model.target_kl": [value for value in RATE if value != "null"],
        "model.standardize_advantages": FLAG,
        "model.scale_rewards": FLAG,
        "model.init_log_std": [*NUMBER, NAN, INFINITE],
        "data.rollout_steps": POSITIVE,
        "data.num_epochs": POSITIVE,
        "data.batch_size": [*POSITIVE, "3"],
        "data.learning_starts": ["10"],
        "model": ["SAC"],
    },
    "maxent_ppo": {
        "model.entropy_coeff": [*NUMBER, "-1", NAN, INFINITE],
        "model.standardization": ["abc", "1", "null"],
        "model.differentiate_returns": FLAG,
        "model.bonus_coeff": ["0.1"],
    },
    "memr": {
        "model.variant": ["abc", "1", "null"],
        "model.priority_exponent": [*NUMBER, "-0.1", NAN, INFINITE],
        "model.weight_exponent": ["abc", "0.4", "[1]", "[-1,1]", "[nan,1]", "null"],
        "model.behaviour_hidden_sizes": [value for value in SIZES if value != "null"],
        "model.behaviour_lr": RATE,
        "model.behaviour_epochs": POSITIVE,
        "model.behaviour_batch_size": POSITIVE,
        "model.segments": POSITIVE,
        "model.rollout_freq": POSITIVE,
        "model.rollout_schedule": ["[0,1,1,2]"],
    },
}
UNKNOWN = [
    *("--bogus=1", "--model.bogus=1", "--data.bogus=1", "--data.env.bogus=1", "--trainer.bogus=1", "--checkpoint.x=1"),
    *("--progress.x=1", "--model.horizons=3", "--gamma=0.9", "--modle.gamma=0.9", "--data.env.name.x=1", "stray"),
    *("--model=Nope", "--data=Nope", "--model=lit_mbrl.nope.SAC", "--model=os.path", "--model=1", "--model=null"),
    *(
        "--trainer.callbacks+=lit_mbrl.callbacks.Nope",
        "--model.gamma",
        "--config",
        "--",
        "-x",
        "--model.gamma=0.9=0.8",
        "=",
        "--=1",
    ),
]
# Options that are right by themselves and wrong together.
CONTRADICTIONS = [
    "--data=SequenceReplay",
    "--data=OnPolicy",
    "--model=PPO",
    "--model=MBPO --data=OnPolicy",
    "--model=MEMR --data=SequenceReplay",
    "--model=Dreamer",
    "--model=MBPO --data.learning_starts=1",
    "--model=MBPO --trainer.devices=2",
    "--model=MEMR --model.rollout_schedule=[0,1,1,2]",
    "--data.total_frames=50 --data.learning_starts=50",
    "--data.env.num_envs=2",
    "--data.env.num_envs=4 --data.frames_per_batch=6",
    "--data.env.num_envs=4 --data.frames_per_batch=4 --data.capacity=3",
    "--model.init_alpha=0 --model.learn_alpha=true",
    "--data.env.name=CartPole-v1",
    "--model=TD3 --model.alpha_lr=0.1",
    "--data.total_frames=1000000000000 --data.capacity=1000000000000",
    "--trainer.accelerator=cpu --trainer.devices=[0,1]",
    "--trainer.accelerator=cpu --trainer.precision=16-mixed --trainer.devices=0",
    "--data.env.kwargs.max_episode_steps=3",
    "--ckpt_path=last --trainer.default_root_dir=nowhere",
]
FILES = {
    "open list": "a: [1\n",
    "open map": "model: {class_path: SAC\n",
    "tab": "model:\n\tclass_path: SAC\n",
    "scalar": "3\n",
    "list": "- model\n- data\n",
    "empty": "",
    "text": "what is this\n",
    "unknown tag": "model: !!python/object:os.system {}\n",
    "code": "model: !!python/object/apply:os.system ['true']\n",
    "alias": "model: *nowhere\n",
    "two documents": "model: {class_path: SAC}\n---\nmodel: {class_path: SAC}\n",
    "colon": "model: class_path: SAC\n",
    "bytes": b"\xff\xfe\x00\x01",
    "null byte": b"model:\x00 1\n",
    "interpolation": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope}\n",
    "open interpolation": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope\n",
    "circle": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${model.init_args.gamma}\n",
    "resolver": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope:1}\n",
    "section": "modl:\n  class_path: SAC\n",
    "class": "model:\n  class_path: Nope\n",
    "class is a list": "model:\n  class_path: [SAC]\n",
    "model is a list": "model: [SAC]\n",
    "init_args is a list": "model:\n  class_path: SAC\n  init_args: [1]\n",
    "argument": "model:\n  class_path: SAC\n  init_args: {gama: 1}\n",
    "type": "model:\n  class_path: SAC\n  init_args: {gamma: [1]}\n",
    "range": "model:\n  class_path: SAC\n  init_args: {gamma: 2}\n",
    "field": "data:\n  init_args:\n    env: {nam: x}\n",
    "env is a string": "data:\n  init_args:\n    env: Pendulum-v1\n",
    "callbacks is a map": "trainer:\n  callbacks: {class_path: lit_mbrl.callbacks.Nope}\n",
    "callback": "trainer:\n  callbacks:\n  - class_path: lit_mbrl.callbacks.Nope\n",
    "callback argument": "trainer:\n  callbacks:\n  - class_path: lit_mbrl.callbacks.SoftTargetUpdate\n"
    "    init_args: {tua: 3}\n",
    "trainer is a list": "trainer: [1]\n",
    "trainer argument": "trainer: {max_epoch: 1}\n",
    "number as a key": "1: 2\n",
    "key twice": "trainer: {max_epochs: 1, max_epochs: 2}\n",
    "section twice": "model: {class_path: SAC}\ndata: {}\nmodel: {class_path: TD3}\n",
    "itself": "data: &a {init_args: *a}\n",
    "itself in a list": "trainer:\n  callbacks: &a [*a]\n",
    "bomb": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)),
    "deep list": f"a: {'[' * 5000}\n",
    "deep map": f"{'{a: ' * 5000}\n",
    "deep blocks": "".join(f"{'  ' * i}a:\n" for i in range(2000)),
    "no section": "checkpoint: null\n",
    "no sections": "trainer: null\nprogress: null\n",
    "section is a number": "checkpoint: 3\n",
    "infinity": "model:\n  class_path: SAC\n  init_args: {actor_lr: .inf}\n",
    "circle of two": "model:\n  class_path: SAC\n  init_args: {gamma: '${.actor_lr}', actor_lr: '${.gamma}'}\n",
    "unset variable": "seed_everything: ${oc.env:NOT_SET}\n",
    "null byte in a name": 'trainer: {default_root_dir: "a\\0b"}\n',
    "long name": f"ckpt_path: {'x' * 5000}\n",
}


def cases() -> Iterator[tuple[str, list[str]]]:
    """Name and arguments after `fit --config conf/<name>.yaml` and small sizes."""
    for config, options in OPTIONS.items():
        for option, values in options.items():
            for value in values:
                yield config, [f"--{option}={value}"]
    for argument in UNKNOWN:
        yield "sac", [argument]
    for line in CONTRADICTIONS:
        yield "sac", line.split()
    for name in FILES:
        yield "sac", [f"--config={name}.yaml"]
    for name in ("nope.yaml", "conf/nope.yaml", "conf", "."):
        yield "sac", [f"--config={name}"]


CASES = list(cases())
_fast = set(random.Random(0).sample(range(len(CASES)), SAMPLE))


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 300
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("config", "more"),
    [
        pytest.param(*case, id=f"{case[0]} {' '.join(case[1])}", marks=[] if i in _fast else pytest.mark.slow)
        for i, case in enumerate(CASES)
    ],
)
def test_a_wrong_command_is_one_line(
    config: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for argument in more:
        if (name := argument.removeprefix("--config=").removesuffix(".yaml")) in FILES:
            content = FILES[name]
            (tmp_path / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.rglob("*"))
    # Those of TINY that the case sets itself would come first, and jsonargparse takes the last.
    code = main(["fit", "--config", f"{CONF / config}.yaml", *tiny(config), NO_WANDB, *more])
    out, err = capfd.readouterr()
    assert code == 2, (code, out, err)
    assert err.count("\n") == 1 and err.startswith("error: ") and len(err) > 20, err
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
