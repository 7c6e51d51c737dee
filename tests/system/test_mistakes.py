"""What users read when they mistype a command line or a config file: one line, and nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mbrl.app.cli import main
from tests.helpers.command_line import SAC, TINY, tiny

FILES = {
    "broken.yaml": "a: [1\n",
    "scalar.yaml": "3\n",
    "dangling.yaml": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope.x}\n",
    "section.yaml": "modl:\n  class_path: SAC\n",
    "field.yaml": "data:\n  init_args:\n    env:\n      nam: x\n",
    "parameter.yaml": "model:\n  class_path: SAC\n  init_args:\n    gama: 3\n",
    "callback.yaml": "trainer:\n  callbacks:\n  - class_path: lit_mbrl.callbacks.SoftTargetUpdat\n",
    "tau.yaml": "trainer:\n  callbacks:\n  - class_path: lit_mbrl.callbacks.SoftTargetUpdate\n"
    "    init_args: {tua: 3}\n",
    "foreign.ckpt": "not a checkpoint",
    "null.yaml": "checkpoint: null\n",
    "circle.yaml": "model: &a {class_path: SAC, init_args: *a}\n",
    "bomb.yaml": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    "deep.yaml": f"a: {'[' * 3000}{']' * 3000}\n",
    "twice.yaml": "model:\n  class_path: SAC\n  init_args: {gamma: 0.9}\n\nmodel:\n  class_path: TD3\n",
    "long.yaml": f"trainer:\n  default_root_dir: {'x' * 300}\n",
    "nulls.yaml": 'ckpt_path: "a\\0b"\n',
    "infinite.yaml": "model:\n  class_path: SAC\n  init_args: {target_entropy: -.inf}\n",
}
LONG = "x" * 300
MISTAKES = [
    # unknown options
    ("--bogus=1", "--bogus=1: no such option"),
    ("--trainer.max_epoch=9", "--trainer.max_epoch=9: no such option (did you mean '--trainer.max_epochs'?)"),
    ("--model.horizon=3", "--model.horizon=3: SAC has no such option"),
    ("--model.gama=0.9", "--model.gama=0.9: SAC has no such option (did you mean '--model.gamma'?)"),
    (
        "--data.env.num_env=2",
        "--data.env.num_env=2: OffPolicy has no such option (did you mean '--data.env.num_envs'?)",
    ),
    (
        "--trainer.callbacks.tua=3",
        "--trainer.callbacks.tua=3: SoftTargetUpdate has no such option (did you mean '--trainer.callbacks.tau'?)",
    ),
    ("--progress.refresh=1", "--progress.refresh=1: no such option (did you mean '--progress.refresh_seconds'?)"),
    ("extra", "extra: expected an option, as --name=value"),
    ("--model.critic_lr", "--model.critic_lr: expected a value"),
    # wrong types and values
    ("--model.gamma=abc", "--model.gamma=abc: expected a number between 0 and 1"),
    ("--model.gamma=2", "--model.gamma=2.0: expected a number between 0 and 1"),
    ("--model.hidden_sizes=[a]", "--model.hidden_sizes=['a']: expected positive layer sizes, as [256,256]"),
    ("--model.log_std_squash=foo", "--model.log_std_squash=foo: expected tanh or clamp"),
    ("--model.target_entropy=foo", "--model.target_entropy=foo: expected a number or auto"),
    ("--data.total_frames=abc", "--data.total_frames=abc: expected an integer"),
    ("--data.env.num_envs=abc", "--data.env.num_envs=abc: expected an integer"),
    ("--data.env.num_envs=-1", "--data.env.num_envs=-1: expected an integer > 0"),
    ("--data.env.max_episode_steps=x", "--data.env.max_episode_steps=x: expected an integer > 0 or null"),
    ("--data.env=3", "--data.env=3: expected a mapping, or its entries as --data.env.<name>=<value>"),
    ("--trainer.callbacks.tau=3", "--trainer.callbacks.tau=3.0: expected a number between 0 and 1"),
    ("--trainer.max_epochs=abc", "--trainer.max_epochs=abc: expected an integer or null"),
    ("--checkpoint.every_epochs=0", "--checkpoint.every_epochs=0: expected an integer > 0"),
    ("--seed_everything=-3", "--seed_everything=-3: expected a seed (-3 is not in bounds"),
    # unknown classes
    ("--model=SACC", "--model=SACC: expected the name of a class (did you mean 'SAC'?)"),
    (
        "--model=lit_mbrl.callbacks.SoftTargetUpdate",
        "--model=lit_mbrl.callbacks.SoftTargetUpdate: expected the name of a class",
    ),
    ("--data=foo.Bar", "--data=foo.Bar: expected the name of a class"),
    (
        "--trainer.callbacks+=lit_mbrl.callbacks.SoftTargetUpdat",
        "--trainer.callbacks=lit_mbrl.callbacks.SoftTargetUpdat: expected the name of a class "
        "(did you mean 'lit_mbrl.callbacks.SoftTargetUpdate'?)",
    ),
    # the trainer
    ("--trainer.accelerator=foo", "--trainer.accelerator=foo: You selected an invalid accelerator name"),
    ("--trainer.strategy=foo", "--trainer.strategy=foo: You selected an invalid strategy name"),
    ("--trainer.devices=0", "--trainer.devices=0: `Trainer(devices="),
    ("--trainer.precision=foo", "--trainer.precision=foo: expected 64, 32, 16, "),
    ("--trainer.max_epochs=-7", "--trainer.max_epochs=-7: `max_epochs` must be a non-negative integer or -1."),
    (
        "--trainer.callbacks=null",
        "--trainer.callbacks=None: expected a list with lit_mbrl.callbacks.SoftTargetUpdate, since SAC has target",
    ),
    (
        "--trainer.default_root_dir=broken.yaml/x",
        "--trainer.default_root_dir=broken.yaml/x: expected a folder that can",
    ),
    # environments
    ("--data.env.name=Pendulum-v2", "--data.env.name=Pendulum-v2: expected a Gymnasium id"),
    (
        "--data.env.name=CartPole-v1",
        "--data.env.name=CartPole-v1: expected an environment with continuous actions, which SAC needs",
    ),
    ("--data.env.name=nowhere:Bar-v0", "--data.env.name=nowhere:Bar-v0: expected an installed environment (No module"),
    ("--data.env.kwargs.foo=3", "--data.env.kwargs={'foo': 3}: expected arguments that Pendulum-v1 takes"),
    # checkpoints
    ("--ckpt_path=nope.ckpt", "--ckpt_path=nope.ckpt: expected a checkpoint, but there is no such file"),
    (
        "--ckpt_path=foreign.ckpt",
        "--ckpt_path=foreign.ckpt: expected a checkpoint, but this file is damaged or something",
    ),
    (
        "--ckpt_path=last",
        "--ckpt_path=last: expected a run to go on with, but runs/sac/Pendulum-v1/seed0-* has no checkpoints/last.ckpt",
    ),
    # config files
    ("--config=nope.yaml", "--config=nope.yaml: expected a config file, but there is no such file"),
    ("--config=conf/sac_sgv.yaml", "(did you mean 'conf/sac_svg.yaml'?)"),
    (
        "--config=broken.yaml",
        "--config=broken.yaml: expected YAML, but expected ',' or ']', but got '<stream end>' (",
    ),
    ("--config=scalar.yaml", "--config=scalar.yaml: expected YAML with entries as model, data and trainer"),
    (
        "--config=dangling.yaml",
        "--model.gamma=${nope.x}: expected the name of a config entry, but there is no nope.x",
    ),
    ("--config=section.yaml", "--modl.class_path: no such option (did you mean '--model'?)"),
    ("--config=field.yaml", "--data.env.nam: OffPolicy has no such option (did you mean '--data.env.name'?)"),
    ("--config=parameter.yaml", "--model.gama: SAC has no such option (did you mean '--model.gamma'?)"),
    (
        "--config=callback.yaml",
        "--trainer.callbacks=lit_mbrl.callbacks.SoftTargetUpdat: expected the name of a class (did you",
    ),
    ("--config=tau.yaml", "--trainer.callbacks.tua: SoftTargetUpdate has no such option"),
    ("--config=null.yaml", "--checkpoint=null: expected a mapping, or its entries as --checkpoint.<name>=<value>"),
    (
        "--config=circle.yaml",
        "--config=circle.yaml: expected YAML that ends, but what begins in line 1 contains itself",
    ),
    ("--data.env.kwargs={a: &x [*x]}", "expected YAML that ends, but what begins in line 1 contains itself"),
    ("--config=bomb.yaml", "--config=bomb.yaml: expected YAML with at most 200,000 entries, aliases written out"),
    ("--config=deep.yaml", "--config=deep.yaml: expected YAML with at most 64 levels"),
    ("--config=twice.yaml", "--config=twice.yaml: expected YAML with each key once, but model is in lines 1 and 5"),
    # names that no file can have
    (
        "--config=long.yaml",
        f"--trainer.default_root_dir={LONG}: expected a folder that can be written to (File name too",
    ),
    ("--config=nulls.yaml", "--ckpt_path=a\\x00b: expected a checkpoint, but there is no such file"),
    (f"--config={LONG}.yaml", f"--config={LONG}.yaml: expected a config file, but there is no such file"),
    (f"--ckpt_path={LONG}", f"--ckpt_path={LONG}: expected a checkpoint, but there is no such file"),
    (f"--data.env.name={LONG}-v1", f"--data.env.name={LONG}-v1: expected a Gymnasium id"),
    ("--data.env.name=:X", "--data.env.name=:X: expected a Gymnasium id"),
    ("--data.env.name=.a:X-v0", "--data.env.name=.a:X-v0: expected a Gymnasium id"),
    # classes that are none of ours
    (
        "--model=lightning.pytorch.LightningModule",
        "--model=lightning.pytorch.LightningModule: expected the name of a cl",
    ),
    ("--data=lightning.pytorch.LightningDataModule", "LightningDataModule has no such option"),
    # numbers and sizes
    ("--config=infinite.yaml", "--model.target_entropy=-inf: expected a finite number"),
    ("--model.actor_lr=1e400", "--model.actor_lr=inf: expected a finite number"),
    ("--progress.refresh_seconds=.inf", "--progress.refresh_seconds=inf: expected a finite number"),
    ("--trainer.callbacks.tau=.nan", "--trainer.callbacks.tau=nan: expected a finite number"),
    ("--num_threads=100000", "--num_threads=100000: expected at most "),
    ("--checkpoint.monitor=bogus", "--checkpoint.monitor=bogus: expected a metric of the evaluation: eval/return, "),
    ("--checkpoint.monitor=eval/retrun", "(did you mean 'eval/return'?)"),
    ("--checkpoint.folder=/tmp", "--checkpoint.folder=/tmp: expected a name of its own inside the run folder, as che"),
    ("--data.batch_size=2000000000", "--data.batch_size=2000000000: expected a size that fits: it takes "),
    ("--data.eval_episodes=100000000", "--data.eval_episodes=100000000: expected a size that fits: it takes "),
    ("--model.hidden_sizes=[1000000,1000000]", "--model.hidden_sizes=[1000000, 1000000]: expected a size that fits"),
]


pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture
def fails(work: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that has to fail with one line on standard error, leaving nothing behind."""
    for name, content in FILES.items():
        (work / name).write_text(content)

    def run(*arguments: str) -> str:
        before = sorted(work.rglob("*"))
        assert main(list(arguments)) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1 and err.startswith("error: "), err
        assert sorted(work.rglob("*")) == before
        return err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.mark.parametrize(("argument", "line"), MISTAKES, ids=[argument for argument, _ in MISTAKES])
def test_a_mistake_is_one_line(argument: str, line: str, fails: Callable[..., str]) -> None:
    assert line in fails(*SAC, argument)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(fails: Callable[..., str]) -> None:
    assert fails(*SAC, "--trainer.accelerator=gpu") == "--trainer.accelerator=gpu: No supported gpu backend found!"


def test_negative_horizon(fails: Callable[..., str]) -> None:
    arguments = ["fit", "--config", "conf/sac_svg.yaml", *TINY, "--model.horizon=-1"]
    assert fails(*arguments) == "--model.horizon=-1: expected an integer >= 0"


@pytest.mark.parametrize(
    ("config", "arguments", "line"),
    [
        ("sac_svg", ["--model.horizon=21"], "--model.horizon=21: expected at most 20, the steps of an episode of Pend"),
        (
            "sac_svg",
            ["--model.horizon=20", "--data.learning_starts=9"],
            "--model.horizon=20: expected at most 9, the st",
        ),
        (
            "sac_svg",
            ["--data.capacity=1"],
            "--data.capacity=1: expected at least 2, since model.horizon asks for 2 con",
        ),
        (
            "mve",
            ["--model.critic_horizon=21"],
            "--model.critic_horizon=21: expected at most 20, the steps of an episode",
        ),
        ("mbpo", ["--model.rollout_batch_size=1000000000000"], "--model.rollout_batch_size="),
        (
            "dreamer",
            ["--data.env.pixels.size=100000"],
            "--data.env.pixels.size=100000: expected an integer from 8 to 2048",
        ),
        (
            "dreamer",
            ["--data.sequence_length=12"],
            "--data.sequence_length=12: expected at most 11, the frames of an ep",
        ),
        (
            "pets",
            ["--model.planner.horizon=21"],
            "--model.planner.horizon=21: expected at most 20, the steps of an epi",
        ),
        (
            "pets",
            ["--data.env.name=HalfCheetah-v5", "--model.reward=known"],
            "--model.reward=known: expected learned or auto: envs/tasks/rewards.py knows no reward of HalfCheetah-v5",
        ),
        (
            "pets",
            ["--model.planner.num_elites=9"],
            "--model.planner.num_elites=9: expected an integer > 1 and at most num_candidates=8",
        ),
        (
            "pets",
            ["--data.env.name=CarRacing-v3"],
            "--data.env.name=CarRacing-v3: expected an environment with a vector as its observation",
        ),
        (
            "pilco",
            ["--model.horizon=11"],
            "--model.horizon=11: expected at most 7, the steps of an episode of pets/CartPole",
        ),
        (
            "pilco",
            ["--data.env.name=CartPole-v1"],
            "--data.env.name=CartPole-v1: expected an environment with continuous actions, which PILCO needs",
        ),
        (
            "pilco",
            ["--data.env.name=CarRacing-v3"],
            "--data.env.name=CarRacing-v3: expected an environment with a vector as its observation, which PILCO needs",
        ),
        ("ppo", ["--data.batch_size=3"], "--data.batch_size=3: expected a divisor of the 20 frames of a rollout"),
    ],
)
def test_sizes_that_do_not_go_together(config: str, arguments: list[str], line: str, fails: Callable[..., str]) -> None:
    assert fails("fit", f"--config=conf/{config}.yaml", *tiny(config), *arguments).startswith(line)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("model", "lit_mbrl.algorithms.Algorithm"),
        ("data", "lightning.pytorch.LightningDataModule"),
        ("data", "lightning.pytorch.demos.boring_classes.BoringDataModule"),
    ],
)
def test_classes_that_cannot_be_run(option: str, name: str, fails: Callable[..., str]) -> None:
    words = ["fit", "--model=SAC"] if option == "data" else ["fit"]
    assert fails(*words, f"--{option}={name}").startswith(f"--{option}={name}: expected a")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no command: expected one of fit, validate, evaluate, video, plot, model_error, qualify, paper, list"),
        (
            ["fut"],
            "fut: expected one of fit, validate, evaluate, video, plot, model_error, qualify, paper, list "
            "(did you mean 'fit'?)",
        ),
        (["fit"], "--config: expected a config file, as conf/sac_svg.yaml (`python -m lit_mbrl list` shows them)"),
        (["validate", "--config", "conf/sac.yaml"], "--ckpt_path=None: expected the checkpoint to evaluate"),
        (["validate", "--ckpt_path", "x"], "--ckpt_path=x: expected a checkpoint, but there is no such file"),
    ],
)
def test_a_command_that_lacks_something(arguments: list[str], line: str, fails: Callable[..., str]) -> None:
    assert fails(*arguments) == line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model.hidden_sizes=[9,8]"], "actor.net.0.bias to be (9,) as configured, not (8,)"),
        (["--model.learn_alpha=false"], "a checkpoint with 2 optimisers as configured, not 3"),
        (["--model=TD3", "--model.hidden_sizes=[8,8]"], "a checkpoint of TD3"),
    ],
)
def test_checkpoint_of_another_run(
    arguments: list[str], reason: str, finished: Path, fails: Callable[..., str]
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    line = fails(*SAC, *arguments, f"--ckpt_path={last}")
    assert line == f"--ckpt_path={last} (SAC on Pendulum-v1): expected {reason}"


def test_checkpoint_of_another_program(work: Path, fails: Callable[..., str]) -> None:
    torch.save({"state_dict": {}}, work / "other.ckpt")
    line = "--ckpt_path=other.ckpt: expected a checkpoint of lit_mbrl, but this is another program's"
    assert fails(*SAC, "--ckpt_path=other.ckpt") == line


@pytest.mark.parametrize(
    ("entry", "value", "line"),
    [
        ("format", 2, "a checkpoint of format 1, but this one has format 2: it is a newer version's"),
        (
            "lit_mbrl",
            {"algorithm": "SAC"},
            "a checkpoint with the entries that this version writes (KeyError: 'environ",
        ),
        ("lit_mbrl", 3, "a checkpoint with the entries that this version writes (TypeError"),
        ("state_dict", {"actor": 3}, "a checkpoint with the entries that this version writes (AttributeError"),
        ("optimizer_states", 3, "a checkpoint with the entries that this version writes (TypeError"),
        ("config", 3, "a checkpoint whose entry config is a text"),
        ("config", "a: &a [*a]", "YAML that ends, but what begins in line 1 contains itself"),
    ],
)
def test_checkpoints_with_other_entries(
    entry: str, value: Any, line: str, work: Path, finished: Path, fails: Callable[..., str]
) -> None:
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(content | {entry: value}, work / "other.ckpt")
    assert line in fails("validate", "--ckpt_path=other.ckpt")


@pytest.mark.parametrize(
    "entry", ["progress", "skipped", "OffPolicy.envs", "OffPolicy.episode_statistics", "OffPolicy.random"]
)
def test_checkpoints_that_lack_an_entry(entry: str, work: Path, finished: Path, capfd: pytest.CaptureFixture) -> None:
    shutil.copytree(finished, work / "run")
    path = work / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    part, _, name = entry.partition(".")
    if name:
        content[part][name] = {"nonsense": 3}
    else:
        content[part] = [3]
    path.unlink()
    torch.save(content, path)
    assert main(["fit", "--ckpt_path=run/checkpoints/last.ckpt", "--data.total_frames=80"]) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    assert "--ckpt_path=run/checkpoints/last.ckpt: expected a checkpoint with the entries that this" in err


def test_torn_checkpoint(work: Path, finished: Path, fails: Callable[..., str]) -> None:
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (work / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    line = "--ckpt_path=torn.ckpt: expected a checkpoint, but this file is damaged or something else"
    assert fails(*SAC, "--ckpt_path=torn.ckpt") == line
