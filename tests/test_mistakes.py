"""What users read when they mistype a command line or a config file: one line, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lit_mbrl.app.cli import main
from tests.command_line import SAC, TINY

FILES = {
    "broken.yaml": "a: [1\n",
    "scalar.yaml": "3\n",
    "dangling.yaml": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope.x}\n",
    "section.yaml": "modl:\n  class_path: SAC\n",
    "field.yaml": "data:\n  init_args:\n    env:\n      nam: x\n",
    "parameter.yaml": "model:\n  class_path: SAC\n  init_args:\n    gama: 3\n",
    "callback.yaml": "trainer:\n  callbacks:\n  - class_path: callbacks.SoftTargetUpdat\n",
    "tau.yaml": "trainer:\n  callbacks:\n  - class_path: callbacks.SoftTargetUpdate\n    init_args: {tua: 3}\n",
    "foreign.ckpt": "not a checkpoint",
}
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
    ("--model.gamma=abc", "--model.gamma=abc: expected a number"),
    ("--model.gamma=2", "--model.gamma=2.0: expected a number between 0 and 1"),
    ("--model.hidden_sizes=[a]", "--model.hidden_sizes=['a']: expected a list (an integer each) or null"),
    ("--model.log_std_squash=foo", "--model.log_std_squash=foo: expected tanh or clamp"),
    ("--model.target_entropy=foo", "--model.target_entropy=foo: expected a number or auto"),
    ("--data.total_frames=abc", "--data.total_frames=abc: expected an integer"),
    ("--data.env.num_envs=abc", "--data.env.num_envs=abc: expected an integer"),
    ("--data.env.num_envs=-1", "--data.env.num_envs=-1: expected an integer >= 1"),
    ("--data.env.max_episode_steps=x", "--data.env.max_episode_steps=x: expected an integer or null"),
    ("--data.env=3", "--data.env=3: expected a mapping, or its entries as --data.env.<name>=<value>"),
    ("--trainer.callbacks.tau=3", "--trainer.callbacks.tau=3.0: expected a number between 0 and 1"),
    ("--trainer.max_epochs=abc", "--trainer.max_epochs=abc: expected an integer or null"),
    ("--checkpoint.every_epochs=0", "--checkpoint.every_epochs=0: expected an integer > 0"),
    ("--seed_everything=-3", "--seed_everything=-3: expected a seed (-3 is not in bounds"),
    # unknown classes
    ("--model=SACC", "--model=SACC: expected the name of a class (did you mean 'SAC'?)"),
    ("--model=callbacks.SoftTargetUpdate", "--model=callbacks.SoftTargetUpdate: expected the name of a class"),
    ("--data=foo.Bar", "--data=foo.Bar: expected the name of a class"),
    (
        "--trainer.callbacks+=callbacks.SoftTargetUpdat",
        "--trainer.callbacks=callbacks.SoftTargetUpdat: expected the name of a class "
        "(did you mean 'callbacks.SoftTargetUpdate'?)",
    ),
    # the trainer
    ("--trainer.accelerator=foo", "--trainer.accelerator=foo: You selected an invalid accelerator name"),
    ("--trainer.strategy=foo", "--trainer.strategy=foo: You selected an invalid strategy name"),
    ("--trainer.devices=0", "--trainer.devices=0: `Trainer(devices="),
    ("--trainer.precision=foo", "--trainer.precision=foo: expected 64, 32, 16, "),
    ("--trainer.max_epochs=-7", "--trainer.max_epochs=-7: `max_epochs` must be a non-negative integer or -1."),
    (
        "--trainer.callbacks=null",
        "--trainer.callbacks=None: expected a list with callbacks.SoftTargetUpdate, since SAC has target networks",
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
    ("--config=callback.yaml", "--trainer.callbacks=callbacks.SoftTargetUpdat: expected the name of a class (did you"),
    ("--config=tau.yaml", "--trainer.callbacks.tua: SoftTargetUpdate has no such option"),
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
    ("arguments", "line"),
    [
        ([], "no command: expected one of fit, validate, evaluate, video, plot, model_error, qualify, list"),
        (
            ["fut"],
            "fut: expected one of fit, validate, evaluate, video, plot, model_error, qualify, list "
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


def test_torn_checkpoint(work: Path, finished: Path, fails: Callable[..., str]) -> None:
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (work / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    line = "--ckpt_path=torn.ckpt: expected a checkpoint, but this file is damaged or something else"
    assert fails(*SAC, "--ckpt_path=torn.ckpt") == line
