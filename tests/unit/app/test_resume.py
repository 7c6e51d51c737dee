"""Options that change with a resume take effect or are refused by name; two runs never share a folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mbrl.app.cli import main
from lit_mbrl.app.resume import config_diff
from lit_mbrl.app.run_folder import locked
from lit_mbrl.callbacks import Checkpoint
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC, load, rows
from tests.helpers.frames import ALGORITHMS
from tests.helpers.runs import SaveAndStop, Stop, fit, make_data

Resume = Callable[..., int]


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped after its first epoch with rounds, at 40 of 60 steps."""
    folder = tmp_path_factory.mktemp("runs") / "halfway"
    assert main([*SAC, f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=1"]) == 0
    return folder


@pytest.fixture
def resume(halfway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resume:
    """Goes on with a copy of that run, `run`, with more options."""
    shutil.copytree(halfway, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    arguments = [*SAC, "--ckpt_path=run/checkpoints/last.ckpt"]
    return lambda *more: main([*arguments, *more])


@pytest.mark.parametrize(
    ("argument", "refusal"),
    [
        ("--data.env.num_envs=1 --data.env.max_episode_steps=30", "--data.env.max_episode_steps=30: expected 20"),
        ("--data.env.num_envs=2 --data.frames_per_batch=2", "--data.env.num_envs=2: expected 1"),
        ("--data.env.name=Swimmer-v5", "--data.env.name=Swimmer-v5: expected Pendulum-v1"),
        ("--data.env.kwargs.g=3.0", "--data.env.kwargs.g=3.0: expected unset"),
        ("--data.learning_starts=30", "--data.learning_starts=30: expected 20"),
        ("--seed_everything=3", "--seed_everything=3: expected 0"),
        ("--model.init_alpha=0.5", "--model.init_alpha=0.5: expected 1.0"),
        ("--model.orthogonal_init=true", "--model.orthogonal_init=True: expected False"),
        ("--model.normalize_observations=true", "--model.normalize_observations=True: expected False"),
    ],
)
def test_what_cannot_change_is_refused(
    argument: str, refusal: str, resume: Resume, capfd: pytest.CaptureFixture
) -> None:
    assert resume(*argument.split()) == 2
    line = f"error: {refusal}, as in the checkpoint: a resumed run cannot change it\n"
    assert capfd.readouterr().err == line


def test_what_changes_is_said_and_takes_effect(resume: Resume, capfd: pytest.CaptureFixture) -> None:
    more = ["--model.actor_lr=0.5", "--model.target_entropy=-7", "--data.utd_ratio=2", "--data.batch_size=4"]
    assert resume(*more, "--data.eval_episodes=2") == 0
    assert (
        "changed since the checkpoint: data.batch_size 8 -> 4, data.eval_episodes 1 -> 2, data.utd_ratio 1.0 -> 2.0, "
        "model.actor_lr 0.001 -> 0.5, model.target_entropy auto -> -7.0, trainer.max_epochs 1 -> -1\n"
    ) in capfd.readouterr().out
    saved = load(Path("run/checkpoints/last.ckpt"))
    assert saved["state_dict"]["target_entropy"] == -7
    assert [optimizer["param_groups"][0]["lr"] for optimizer in saved["optimizer_states"]] == [1e-3, 0.5, 1e-3]
    # 20 rounds for the 20 steps after the warm-up, then two for each of the last 20.
    assert saved["lit_mbrl"]["train_steps"] == 60
    assert saved["OffPolicy"]["ratios"] == [[20, 0, "1"], [40, 20, "2"]]
    assert float(rows(Path("run"))[-1]["policy/target_entropy"] or -7) == -7


def test_nothing_changed_nothing_said(resume: Resume, capfd: pytest.CaptureFixture) -> None:
    assert resume("--trainer.max_epochs=1") == 0
    assert "changed" not in capfd.readouterr().out


class Rates(Callback):
    """The learning rates that steps are taken with."""

    def __init__(self) -> None:
        self.seen: set[tuple[float, ...]] = set()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen.add(tuple(optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers))


@pytest.mark.parametrize("name", ["sac_svg", "td3"])
def test_a_learning_rate_goes_before_the_one_in_the_checkpoint(name: str, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(ALGORITHMS[name](), make_data(), SaveAndStop(tmp_path / "run.ckpt", 9))
    algorithm, rates = ALGORITHMS[name](), Rates()
    algorithm.critic_lr = 0.125
    fit(algorithm, make_data(), rates, ckpt_path=tmp_path / "run.ckpt")
    assert rates.seen == {tuple(update.lr for update in algorithm.updates())}
    assert 0.125 in next(iter(rates.seen))


def test_a_changed_ratio_owes_no_rounds_for_the_past(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fit(ALGORITHMS["sac"](), make_data(utd_ratio=2), SaveAndStop(tmp_path / "run.ckpt", 21))
    data = make_data(utd_ratio=0.5)
    fit(ALGORITHMS["sac"](), data, ckpt_path=tmp_path / "run.ckpt")
    # Round 21 belongs to step 24 + 11; its 22nd is still owed. Then one for every two of the 25 steps left.
    assert (data.env_steps, data.train_steps) == (59, 22 + 12)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_of_another_mode_is_forgotten(mode: str) -> None:
    checkpoint = Checkpoint(mode="max")
    checkpoint.best = 3.0
    other = Checkpoint(mode=mode)
    other.load_state_dict(checkpoint.state_dict())
    assert other.best == (3.0 if mode == "max" else None)


def test_an_option_of_a_newer_version_is_no_change() -> None:
    assert config_diff({"model": {"gamma": 1}}, {"model": {"gamma": 1, "new": 2}}, ["model.new"]) == {}
    with pytest.raises(OptionError, match="--model.gamma=2: expected 1"):
        config_diff({"model": {"gamma": 1}}, {"model": {"gamma": 2}}, ["model.gamma"])


# ---------------------------------------------------------------------- one run per folder
def test_a_second_run_in_the_folder_is_refused(resume: Resume, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    code = "from lit_mbrl.app.run_folder import *\nwith locked(Path('run')):\n print(1, flush=True)\n input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "1\n"
        before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*"))
        assert resume() == 2
        assert capfd.readouterr().err == (
            "error: --trainer.default_root_dir=run: expected a folder in which no other run is going on, but process "
            f"{holder.pid} has one there\n"
        )
        assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.*")) == before
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert resume() == 0  # nothing has to be cleaned up after a kill
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_ends_with_the_run(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OptionError, match="no other run"), locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):
        pass
