"""A checkpoint stands alone: it is evaluated anywhere, and its weights begin new runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.app.cli import main
from tests.helpers.command_line import NO_WANDB, SAC, TINY, load, rows, run_folders, same

TD3 = ["fit", "--config", "conf/td3.yaml", *TINY, NO_WANDB]


@pytest.fixture
def lone(finished: Path, work: Path) -> Path:
    """A checkpoint without its run."""
    return Path(shutil.copy(finished / "checkpoints" / "last.ckpt", work / "model.ckpt"))


class Weights(Callback):
    """Writes down the weights that a run begins with."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), "weights.pt")


WEIGHTS = f"--trainer.callbacks+={__name__}.Weights"


def begins(*words: str) -> dict[str, Any]:
    """The weights that a run of this command line begins with."""
    assert main([*words, WEIGHTS]) == 0
    return torch.load("weights.pt", weights_only=True)


def test_a_lone_checkpoint_is_evaluated(
    lone: Path, finished: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for command in ("validate", "evaluate --episodes=1"):
        assert main([*command.split(), "--ckpt_path", "model.ckpt"]) == 0
        assert f"{float(rows(finished)[-1]['eval/return']):.1f} " in capfd.readouterr().out
    assert [path.name for path in Path().iterdir()] == ["model.ckpt"]


def test_its_own_config_goes_before_that_of_a_run_it_lies_in(lone: Path, finished: Path, work: Path) -> None:
    (work / "checkpoints").mkdir()
    shutil.move(lone, work / "checkpoints" / "model.ckpt")
    (work / "config.yaml").write_text("model: [nonsense")
    assert main(["validate", "--ckpt_path", "checkpoints/model.ckpt"]) == 0


def test_going_on_needs_the_replay_and_says_so(lone: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(["fit", "--ckpt_path=model.ckpt", "--data.total_frames=80"]) == 2
    assert "expected a checkpoint with its replay, but replay/" in capfd.readouterr().err


def test_a_link_to_a_checkpoint_is_the_checkpoint(finished: Path, work: Path) -> None:
    shutil.copytree(finished, "run")
    (work / "link.ckpt").symlink_to("run/checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path=link.ckpt", "--data.total_frames=80"]) == 0
    assert load(work / "run" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80


def test_a_new_run_starts_with_the_weights(lone: Path, work: Path, capfd: pytest.CaptureFixture) -> None:
    theirs = torch.load(lone, weights_only=True)["state_dict"]
    options = ["--data.env.num_envs=2", "--data.frames_per_batch=2", "--data.env.kwargs.g=5.0"]
    ours = begins("fit", "--init_from=model.ckpt", *options)  # the config is the checkpoint's
    assert "starts from actor, critic, critic_target, log_alpha of model.ckpt (SAC on Pendulum-v1, 60 env" in (
        capfd.readouterr().out
    )
    assert same(dict(ours), dict(theirs))
    (folder,) = run_folders(work)
    assert rows(folder)[-1]["step"] == "60"
    # It is resumed as any other run, from its own weights.
    again = ["fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--data.total_frames=80"]
    lone.unlink()
    assert main(again) == 0
    assert load(folder / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80


def test_chosen_parts_and_another_algorithm(lone: Path) -> None:
    theirs = torch.load(lone, weights_only=True)["state_dict"]
    ours = begins(*SAC, "--init_from=model.ckpt", "--init_parts=[actor]", "--model.init_alpha=0.5")
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]) == (name.startswith("actor.") or name == "target_entropy"), name
    ours = begins(*TD3, "--init_from=model.ckpt", "--init_parts=[critic,critic_target]")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name.startswith("critic"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([*SAC, "--init_from=nope.ckpt"], "--init_from=nope.ckpt: expected a checkpoint, but there is no such file"),
        (
            [*SAC, "--init_from=model.ckpt", "--init_parts=[acto]"],
            "--init_parts=acto: expected parts of SAC: actor, critic, critic_target, log_alpha (did you mean 'actor'?)",
        ),
        ([*SAC, "--init_from=model.ckpt", "--init_parts=[]"], "--init_parts=[]: expected parts of SAC: actor, critic,"),
        (
            [*SAC, "--init_from=model.ckpt", "--data.env.name=Swimmer-v5"],
            "--init_from=model.ckpt: expected weights for actor.net.0.weight (8, 8), (8, 3) in the checkpoint: "
            "--init_parts=[log_alpha] starts without",
        ),
        (
            [*TD3, "--init_from=model.ckpt", "--init_parts=[actor_target]"],
            "weights for actor_target.net.0.weight (8, 3), which this checkpoint does not have",
        ),
        ([*SAC, "--init_parts=[actor]"], "--init_parts=['actor']: expected --init_from=<checkpoint> beside it"),
    ],
)
def test_what_does_not_fit_is_refused(
    words: list[str], line: str, lone: Path, work: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert line in err and err.count("\n") == 1 and out == ""
    assert [path.name for path in work.iterdir()] == ["model.ckpt"]


def test_a_run_that_goes_on_does_not_begin(finished: Path, work: Path, capfd: pytest.CaptureFixture) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    assert main([*SAC, f"--ckpt_path={last}", f"--init_from={last}"]) == 2
    assert "expected one of --ckpt_path, which goes on with a run, and --init_from" in capfd.readouterr().err
