"""`evaluate` and `video`: the same episodes of a checkpoint, as numbers and as pictures."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from lit_mbrl.app.cli import main
from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.wrappers import rendering
from lit_mbrl.envs.wrappers.recording import RecordedEnv
from lit_mbrl.envs.wrappers.rendering import gl_backend, prepare_rendering
from lit_mbrl.reports.statistics import estimate, interval
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC, rows

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main([*SAC, "--data.eval_episodes=3", f"--trainer.default_root_dir={folder}"]) == 0
    return folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what is set for drawing is unset again."""
    monkeypatch.chdir(tmp_path)
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def evaluated(checkpoint: Path, capfd: pytest.CaptureFixture, *arguments: str) -> dict[str, Any]:
    """The object that `--json` prints, alone on standard output."""
    assert main(["evaluate", "--ckpt_path", str(checkpoint), "--json", *arguments]) == 0
    return json.loads(capfd.readouterr().out)


# ---------------------------------------------------------------------- evaluate
def test_json_has_the_episodes_of_the_run_s_own_evaluation(finished: Path, capfd: pytest.CaptureFixture) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    found = evaluated(last, capfd, "--episodes=3")
    row = rows(finished)[-1]
    assert found["return"]["mean"] == pytest.approx(float(row["eval/return"]), rel=1e-5)
    assert found["return"]["std"] == pytest.approx(float(row["eval/return_std"]), rel=1e-4)
    returns = np.array(found["returns"])
    assert found["return"]["interval_95"] == pytest.approx(list(interval(returns, "mean")))
    assert found["return"]["iqm"] == estimate(returns, "iqm")
    assert (found["return"]["min"], found["return"]["max"]) == (returns.min(), returns.max())
    assert found["episode_lengths"] == [20, 20, 20] and found["episode_length"]["mean"] == 20.0
    expected = {"checkpoint": str(last), "algorithm": "SAC", "environment": "Pendulum-v1"}
    assert found | expected | {"env_steps": 60, "episodes": 3} == found


def test_table_and_overrides(finished: Path, capfd: pytest.CaptureFixture) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    command = ["evaluate", f"--ckpt_path={last}", "--episodes", "1", "--data.env.max_episode_steps=7"]
    assert main(command) == 0
    header, where, _, *lines = capfd.readouterr().out.splitlines()
    assert header.startswith("SAC (Haarnoja") and where == f"{last}, after 60 env steps: 1 deterministic episodes"
    assert lines[0].split() == ["mean", "std", "95", "%", "interval", "IQM", "min", "max"]
    name, mean, std, bounds, iqm, least, most = lines[2].split()
    assert (name, float(std), bounds) == ("return", 0.0, "-") and mean == iqm == least == most
    assert lines[3].split() == ["episode", "length", "7.000", "0.000", "-", "7.000", "7.000", "7.000"]
    # A single episode has no interval, and JSON no word for it but null.
    assert evaluated(last, capfd, "--episodes=1")["return"]["interval_95"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluate"], "--ckpt_path: expected the checkpoint to evaluate"),
        (["evaluate", "--ckpt_path=x"], "--ckpt_path=x: expected a checkpoint, but there is no such file"),
        (["evaluate", "--ckpt_path=LAST", "--episodes=0"], "--episodes=0: expected an integer > 0"),
        (["evaluate", "--ckpt_path=LAST", "--episodes=1.5"], "--episodes=1.5: expected an integer > 0"),
        (
            ["evaluate", "--ckpt_path=LAST", "--data.eval_episodes=3"],
            "--data.eval_episodes: expected --episodes in its place",
        ),
        (["evaluate", "--ckpt_path=LAST", "--bogus=1"], "--bogus=1: no such option"),
        (["evaluate", "--ckpt_path=LAST", "--json=1"], "--json: ignored explicit argument '1'"),
        (["video"], "--ckpt_path: expected the checkpoint to film"),
        (["video", "--ckpt_path=x"], "--ckpt_path=x: expected a checkpoint, but there is no such file"),
        (["video", "--ckpt_path=LAST", "--fps=-1"], "--fps=-1: expected a number > 0"),
        (["video", "--ckpt_path=LAST", "--fps=fast"], "--fps=fast: expected a number > 0"),
        (["video", "--ckpt_path=LAST", "--out=a.gif"], "--out=a.gif: expected a name that ends in .mp4"),
        (["video", "--ckpt_path=LAST", "--out=LAST/a.mp4"], "expected a file that can be written (File exists)"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    line: str,
    finished: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", sys)  # mistakes are found whether or not it is installed
    last = str(finished / "checkpoints" / "last.ckpt")
    assert main([argument.replace("LAST", last) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and line in err, err
    assert list(work.iterdir()) == []


def test_video_says_what_to_install(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(["video", f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}"]) == 2
    assert capfd.readouterr().err == "error: video: a package is missing: pip install 'lit-mbrl[video]'\n"


# ---------------------------------------------------------------------- video
def test_video_shows_the_episodes_that_evaluate_has(finished: Path, capfd: pytest.CaptureFixture) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    last = finished / "checkpoints" / "last.ckpt"
    returns = evaluated(last, capfd, "--episodes=2")["returns"]
    assert main(["video", f"--ckpt_path={last}", "--episodes=2", "--data.env.kwargs.render_mode=human"]) == 0
    line = capfd.readouterr().out.splitlines()[-1]
    video = finished / "last.mp4"
    assert line == f"{video}: 2 episodes, 42 frames at 30 per second, return {returns[0]:.1f}, {returns[1]:.1f}"
    assert sorted(path.name for path in finished.iterdir() if "mp4" in path.name) == ["last.mp4"]
    raw = [ffmpeg, "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(raw, check=True, capture_output=True)
    assert b"500x500" in read.stderr and b" 30 fps" in read.stderr
    pictures = np.frombuffer(read.stdout, np.uint8).reshape(42, 500, 500, 3)
    # White with a red pole: dark in few places, and it moves within and between the episodes.
    assert 0.9 < (pictures > 200).mean() < 0.999
    moved = np.abs(np.diff(pictures.astype(int), axis=0)).mean((1, 2, 3))
    assert (moved > 0.01).all()
    gc.collect()  # a pipe that was left open would warn here


def test_frames_of_one_episode_from_its_first_observation_to_its_last() -> None:
    pictures: list[np.ndarray] = []
    env = RecordedEnv(EnvConfig("Pendulum-v1", max_episode_steps=4, num_envs=3, workers=True), 5, pictures.append)
    assert env.batch_size == (1,) and env.frames_per_second == 30
    root = env.reset()
    reference = PendulumEnv(render_mode="rgb_array")
    reference.reset(seed=5)
    for _ in range(4):
        root["action"] = env.action_spec.zero()
        np.testing.assert_array_equal(pictures[-1], reference.render())
        frame, root = env.step_and_maybe_reset(root)
        reference.step(np.zeros(1))
    np.testing.assert_array_equal(pictures[-1], reference.render())
    assert frame["next", "done"].all() and len(pictures) == 5  # the reset after the end is not shown
    env.close()
    reference.close()


def test_an_environment_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendulumEnv, "render", lambda self: None)
    with (
        closing(RecordedEnv(EnvConfig("Pendulum-v1"), 0, lambda picture: None)) as env,
        pytest.raises(OptionError, match=r"--data.env.name=Pendulum-v1: expected an environment that renders images"),
    ):
        env.reset()


def test_no_graphics_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, ...]] = []
    monkeypatch.setattr(rendering, "gl_backend", lambda candidates: tried.append(candidates))
    for name in ("poplin/Hopper", "mbpo/Hopper", "dmc/walker-walk", "HalfCheetah-v5"):
        with pytest.raises(OptionError, match=r"EGL or OSMesa; Debian and Ubuntu: apt install libegl1"):
            prepare_rendering(name)
    assert tried == [("egl", "osmesa", "glfw")] * 4
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(OptionError, match="MUJOCO_GL=osmesa"):
        prepare_rendering("HalfCheetah-v5")
    prepare_rendering("Pendulum-v1")  # needs none
    assert tried[4:] == [("osmesa",)]


@pytest.mark.parametrize("name", ["poplin/HalfCheetah", "dmc/cartpole-swingup"])
def test_mujoco_draws_what_moves(name: str) -> None:
    """In a process of its own: MuJoCo chooses how to draw when it is imported, which TorchRL has done here."""
    backend = gl_backend(("egl", "osmesa"))
    if backend is None:
        pytest.skip("no graphics library")
    if name.startswith("dmc/"):
        pytest.importorskip("dm_control")
    code = f"""
from contextlib import closing
from lit_mbrl.envs import EnvConfig
from lit_mbrl.envs.wrappers.recording import RecordedEnv
pictures = []
with closing(RecordedEnv(EnvConfig({name!r}, max_episode_steps=3), 0, pictures.append)) as env:
    env.rollout(3)
assert {{picture.shape for picture in pictures}} == {{(480, 480, 3)}} and len(pictures) == 4
assert pictures[0].std() > 10 and (pictures[0] != pictures[-1]).any()
"""
    environment = os.environ | {"MUJOCO_GL": backend}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, env=environment, check=True)


def test_a_broken_graphics_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "mujoco").mkdir()
    (tmp_path / "mujoco" / "__init__.py").write_text("raise AttributeError('glGetError')\n")
    (tmp_path / "imports_mujoco.py").write_text("import mujoco\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setitem(sys.modules, "lit_mbrl.app.application", None)
    monkeypatch.setattr("lit_mbrl.app.cli._COMMANDS", {"video": "imports_mujoco"})
    with pytest.raises(AttributeError, match="glGetError"):
        main(["video"])  # not the setting's fault
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert main(["video"]) == 2
    expected = "a graphics library that is installed (unset it where nothing is to be drawn)"
    assert capfd.readouterr().err == f"error: MUJOCO_GL=osmesa: expected {expected}\n"
