"""What `WandbRun` leaves in a W&B run, and what it refuses."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb

from lit_mbrl.app.cli import main
from lit_mbrl.callbacks.wandb_run import git_state
from tests.helpers.command_line import TINY, load, rows

WANDB_RUN = ["--trainer.callbacks+=lit_mbrl.callbacks.WandbRun"]
RUN = ["fit", "--config", "conf/sac.yaml", *TINY, "--trainer.default_root_dir=run"]


class FakeRun:
    """Takes what a `wandb.Run` is told."""

    offline, disabled, url = True, False, None

    def __init__(self, id: str) -> None:
        self.id = id
        self.config: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.saved: list[str] = []
        self.artifacts: list[tuple[wandb.Artifact, list[str]]] = []
        self.exit_code: int | None = None

    class Config(dict):
        def update(self, *args: Any, allow_val_change: bool = False, **kwargs: Any) -> None:
            super().update(*args, **kwargs)

    def define_metric(self, *args: Any, **kwargs: Any) -> None: ...

    def log(self, metrics: dict[str, Any]) -> None:
        self.logged.append(metrics)

    def save(self, path: str, base_path: str, policy: str) -> None:
        self.saved.append(str(Path(path).relative_to(base_path)))

    def log_artifact(self, artifact: wandb.Artifact, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code

    def values(self, name: str) -> list[Any]:
        """What was logged under a name."""
        return [metrics[name] for metrics in self.logged if name in metrics]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The W&B runs that begin, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    begun: list[FakeRun] = []

    def init(id: str, **_: Any) -> FakeRun:
        run = FakeRun(id)
        run.config = FakeRun.Config()
        begun.append(run)
        return run

    monkeypatch.setattr("wandb.init", init)
    return begun


def table(run: FakeRun) -> list[list[float]]:
    """The rows of the evaluation table."""
    (found,) = run.values("evaluation")
    assert found.columns == ["env_steps", "return", "return_std", "length"]
    return found.data


def expected(folder: Path) -> list[list[float]]:
    """The evaluations of metrics.csv, in the table's columns."""
    names = ("step", "eval/return", "eval/return_std", "eval/episode_length")
    return [[float(row[name]) for name in names] for row in rows(folder) if row["eval/return"]]


def test_what_is_recorded(runs: list[FakeRun]) -> None:
    assert main([*RUN, *WANDB_RUN]) == 0
    (run,) = runs
    assert run.config["environment"] == {
        "name": "Pendulum-v1",
        "observation_dim": 3,
        "action_dim": 1,
        "discrete": False,
        "max_episode_steps": 20,
        "observation_shape": (3,),
        "parts": {},
        "states": None,
    }
    assert run.config["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert run.config["versions"]["mujoco"] == importlib.metadata.version("mujoco")
    assert run.config["git"] == git_state(Path(__file__).parents[3])
    assert run.config["model"] == "SAC" and run.config["data.total_frames"] == 60
    assert run.saved == ["run/config.yaml"] and Path("run/config.yaml").is_file()
    assert table(run) == expected(Path("run")) and len(table(run)) == 2
    assert run.artifacts == [] and run.values("eval/video") == []
    assert run.exit_code == 0


def test_best_checkpoint_on_request(runs: list[FakeRun]) -> None:
    assert main([*RUN, *WANDB_RUN, "--trainer.callbacks.upload_best=true"]) == 0
    ((artifact, aliases),) = runs[0].artifacts
    assert artifact.name == f"checkpoint-{runs[0].id}" and artifact.type == "model" and aliases == ["best"]
    assert artifact.metadata == {"eval/return": max(row[1] for row in table(runs[0]))}
    (entry,) = artifact.manifest.entries.values()
    assert entry.path == "best.ckpt" and Path(entry.local_path).samefile("run/checkpoints/best.ckpt")


def test_resumed_run_is_the_same_run_with_one_table(runs: list[FakeRun]) -> None:
    assert main([*RUN, *WANDB_RUN, "--data.total_frames=40"]) == 0
    assert main(["fit", "--ckpt_path=run/checkpoints/last.ckpt", "--data.total_frames=80"]) == 0
    first, second = runs
    assert first.id == second.id == Path("run/wandb/id").read_text()
    assert [row[0] for row in table(first)] == [40]
    assert [row[0] for row in table(second)] == [40, 60, 80]
    assert table(second) == expected(Path("run"))


def test_a_trial_resumed_by_hand_stays_the_trial(runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as agent:
        agent.setenv("WANDB_RUN_ID", "chosen")
        assert main([*RUN, *WANDB_RUN, "--data.total_frames=40"]) == 0
    assert main(["fit", "--ckpt_path=run/checkpoints/last.ckpt", "--data.total_frames=60"]) == 0
    assert [run.id for run in runs] == ["chosen", "chosen"]


def test_a_run_that_raises_is_failed_and_has_its_table(
    runs: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Broken(Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *args):\n"
        "        if module.env_steps == 50:\n"
        "            raise RuntimeError('broken')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        main([*RUN, *WANDB_RUN, "--trainer.callbacks+=broken.Broken"])
    assert runs[0].exit_code == 1
    assert [row[0] for row in table(runs[0])] == [40]


def test_a_stopped_run_is_not_failed(runs: list[FakeRun]) -> None:
    stop = ["--trainer.callbacks+=tests.helpers.command_line.SendSignal", "--trainer.callbacks.round=25"]
    assert main([*RUN, *WANDB_RUN, "--trainer.callbacks.upload_best=true", *stop]) == 0
    assert runs[0].exit_code == 0
    assert [row[0] for row in table(runs[0])] == [40]
    assert runs[0].artifacts == []
    assert load(Path("run/checkpoints/last.ckpt"))["lit_mbrl"]["env_steps"] == 45


# ---------------------------------------------------------------------- videos
def test_videos_of_every_second_evaluation(runs: list[FakeRun]) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    assert main([*RUN, *WANDB_RUN, "--trainer.callbacks.video_every=2", "--data.total_frames=100"]) == 0
    assert {path.name for path in Path("run/videos").iterdir()} == {"60.mp4", "100.mp4"}
    logged = [metrics for metrics in runs[0].logged if "eval/video" in metrics]
    assert [metrics["env_steps"] for metrics in logged] == [60, 100]
    assert all(isinstance(metrics["eval/video"], wandb.Video) for metrics in logged)
    # Not by imageio, whose reader leaves its pipes open.
    read = [ffmpeg, "-loglevel", "error", "-i", "run/videos/60.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(read, check=True, capture_output=True).stdout
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, 500, 500, 3)
    assert pictures.shape == (21, 500, 500, 3)  # the start and 20 steps
    assert any(not np.array_equal(pictures[0], picture) for picture in pictures)


def test_filming_changes_nothing_else(runs: list[FakeRun]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    assert main([*RUN, *WANDB_RUN]) == 0
    plain = rows(Path("run"))
    films = ["--trainer.callbacks.video_every=1", "--trainer.default_root_dir=filmed"]
    assert main([*RUN, *WANDB_RUN, *films]) == 0
    assert rows(Path("filmed")) == plain


# ---------------------------------------------------------------------- what cannot be had
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--trainer.logger=null"],
            "--trainer.logger=['CsvLogger']: expected a list with lit_mbrl.app.loggers.WandbLogger, where",
        ),
        (
            ["--trainer.callbacks.upload_best=true", "--trainer.enable_checkpointing=false"],
            "--trainer.enable_checkpointing=False: expected true, since WandbRun.upload_best is",
        ),
        (
            ["--trainer.callbacks.video_every=-1"],
            "--trainer.callbacks.video_every=-1: expected an integer >= 0",
        ),
        (
            ["--trainer.callbacks.video_every=1", "--data.env.name=dmc/cartpole-swingup"],
            "--data.env.name=dmc/cartpole-swingup: expected MUJOCO_GL=egl or osmesa in the environment of the command",
        ),
    ],
    ids=["logger", "checkpoint", "negative", "renderer"],
)
def test_one_line_before_the_run_begins(
    arguments: list[str],
    message: str,
    runs: list[FakeRun],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert main([*RUN, *WANDB_RUN, *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert runs == [] and not Path("run").exists()


def test_missing_package_is_one_line(
    runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main([*RUN, *WANDB_RUN, "--trainer.callbacks.video_every=1"]) == 2
    assert "expected its packages: pip install 'lit-mbrl[video]'" in capsys.readouterr().err


def test_validate_and_fast_dev_run_do_without(runs: list[FakeRun]) -> None:
    assert main([*RUN, *WANDB_RUN, "--trainer.fast_dev_run=1"]) == 0
    assert runs == []
    assert main([*RUN, *WANDB_RUN, "--data.total_frames=40"]) == 0
    assert main(["validate", "--ckpt_path=run/checkpoints/last.ckpt"]) == 0
    assert len(runs) == 1


# ---------------------------------------------------------------------- git, and W&B itself
def test_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    (tmp_path / "installed").mkdir()
    assert git_state(tmp_path / "installed") is None  # somebody else's repository


def test_w_and_b_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # nobody is logged in: an offline run
    assert main([*RUN, *WANDB_RUN, "--trainer.callbacks.upload_best=true"]) == 0
    (path,) = Path("run/wandb").glob("offline-run-*/files/media/table/evaluation_*.table.json")
    assert json.loads(path.read_text())["data"] == expected(Path("run"))
    assert list(Path("run/wandb").glob("offline-run-*/files/run/config.yaml"))
