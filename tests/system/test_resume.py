"""The command line goes on with runs: which one, into which folder, with which options, and with the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lit_mbrl.app.arguments import resume_command
from lit_mbrl.app.cli import main
from tests.helpers.command_line import NO_WANDB, SAC, TINY, load, rows, run_folders, same

pytestmark = pytest.mark.usefixtures("work")


def test_resumed_run_is_the_whole_run(work: Path, finished: Path, capfd: pytest.CaptureFixture) -> None:
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0
    assert main([*SAC, "--ckpt_path=last"]) == 0
    (folder,) = run_folders(work)
    assert f"run folder: {folder.relative_to(work)}, resumed at 40 env steps" in capfd.readouterr().out
    assert rows(folder) == rows(finished)
    ours, theirs = (load(path / "checkpoints" / "last.ckpt") for path in (folder, finished))
    assert same(ours["state_dict"], theirs["state_dict"]) and same(ours["OffPolicy"], theirs["OffPolicy"])


def test_rows_after_the_checkpoint_are_taken_again(work: Path, finished: Path) -> None:
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0
    (folder,) = run_folders(work)
    table = (folder / "metrics.csv").read_text()
    with (folder / "metrics.csv").open("a") as file:  # as if the run had been killed in its second epoch
        file.write(table.splitlines()[-1].replace("40,", "50,", 1) + "\n50,1")
    assert main([*SAC, "--ckpt_path=last"]) == 0
    assert rows(folder) == rows(finished)


def test_resume_by_path_takes_config_and_folder_from_the_run(work: Path, finished: Path) -> None:
    shutil.copytree(finished, work / "copy")
    arguments = ["fit", "--ckpt_path", "copy/checkpoints/last.ckpt", "--data.total_frames=80"]
    assert main([*arguments, "--trainer.default_root_dir=copy"]) == 0
    assert load(work / "copy" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80
    assert rows(work / "copy")[: len(rows(finished))] == rows(finished)


def test_resume_into_another_folder_leaves_the_old_one(work: Path, finished: Path) -> None:
    before = (finished / "metrics.csv").read_bytes()
    last = finished / "checkpoints" / "last.ckpt"
    assert main([*SAC, f"--ckpt_path={last}", "--data.total_frames=80", "--trainer.default_root_dir=fork"]) == 0
    assert (finished / "metrics.csv").read_bytes() == before
    assert load(work / "fork" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80


def test_last_is_the_run_that_saved_last(work: Path) -> None:
    for name in ("seed0-1", "seed0-2", "seed0-3", "seed1-4"):
        (work / "runs/sac/Pendulum-v1" / name / "checkpoints").mkdir(parents=True)
    assert main([*SAC, "--trainer.default_root_dir=runs/sac/Pendulum-v1/seed0-2", "--trainer.max_epochs=1"]) == 0
    assert main([*SAC, "--ckpt_path=last"]) == 0
    assert load(work / "runs/sac/Pendulum-v1/seed0-2/checkpoints/last.ckpt")["lit_mbrl"]["env_steps"] == 60


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (
            ["fit", "--config", "a b.yaml"],
            "python -m lit_mbrl fit --config 'a b.yaml' --ckpt_path run/checkpoints/last.ckpt",
        ),
        (["fit", "--init_from=old"], "python -m lit_mbrl fit --ckpt_path run/checkpoints/last.ckpt"),
        (["fit", "--x=1", "--ckpt_path", "old"], "python -m lit_mbrl fit --x=1 --ckpt_path run/checkpoints/last.ckpt"),
        (["fit", "--ckpt_path=old"], "python -m lit_mbrl fit --ckpt_path run/checkpoints/last.ckpt"),
    ],
)
def test_resume_command(given: list[str], command: str) -> None:
    assert resume_command(given, Path("run")) == command


def test_the_noise_of_a_running_episode_goes_on(work: Path) -> None:
    ddpg = ["fit", "--config", "conf/ddpg.yaml", *TINY, NO_WANDB, "--data.epoch_frames=15"]  # episodes have 20 frames
    assert main([*ddpg, "--trainer.default_root_dir=whole"]) == 0
    assert main([*ddpg, "--trainer.default_root_dir=run", "--trainer.max_epochs=1"]) == 0
    noise = load(work / "run" / "checkpoints" / "last.ckpt")["state_dict"]["exploration_noise._extra_state"]
    assert noise.shape == (1, 1) and noise.item() != 0
    assert main([*ddpg, "--trainer.default_root_dir=run", "--ckpt_path=last"]) == 0
    ours, theirs = (load(work / name / "checkpoints" / "last.ckpt") for name in ("run", "whole"))
    assert same(ours["state_dict"], theirs["state_dict"]) and same(ours["OffPolicy"], theirs["OffPolicy"])


def test_a_run_that_was_killed_after_its_last_checkpoint_is_over(
    work: Path, finished: Path, capfd: pytest.CaptureFixture
) -> None:
    shutil.copytree(finished, work / "copy")
    assert main([*SAC, "--trainer.default_root_dir=copy", "--ckpt_path=last"]) == 0
    out, err = capfd.readouterr()
    assert "resumed at 60 env steps" in out and "Finished: 60 env steps" in out
    assert "zero" not in err
    assert rows(work / "copy") == rows(finished)
