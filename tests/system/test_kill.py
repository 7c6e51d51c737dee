"""kill -9 at any moment, and the run that goes on ends with the numbers of one that nobody disturbed, bit for bit.

The moment is drawn from the seed that is printed; `KILL_SEED` sets it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_mbrl.app.cli import CONF, main
from tests.helpers.command_line import DISCRETE, GOALS, LATENT, NO_WANDB, TABULAR, comparable, load, rows, same, tiny

CONFIGS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in ("base", "qualification"))
MUJOCO = ["--data.env.name=HalfCheetah-v5"]
PENDULUM = ["--data.env.name=Pendulum-v1"]
OWN_ENV = {"world_models": PENDULUM}  # Box2D's state cannot be restored, so CarRacing's episodes begin anew
ONE_ENV = (*LATENT, *DISCRETE, *GOALS, *TABULAR, *OWN_ENV, "pilco")
LAST = Path("checkpoints") / "last.ckpt"
# What a child kills itself in, at the `nth` call: every step of a checkpoint's way to the disk.
SUICIDE = """
import os, signal, sys
from lit_mbrl.app.cli import main
name, nth = sys.argv[1], int(sys.argv[2])
original, calls = getattr(os, name), []
def deadly(*args, **kwargs):
    calls.append(args)
    if len(calls) == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(os, name, deadly)
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def draw() -> random.Random:
    """A generator whose seed pytest shows with a failure."""
    seed = int(os.environ.get("KILL_SEED", time.time_ns() % 1_000_000))
    print(f"KILL_SEED={seed}")
    return random.Random(seed)


def arguments(config: str, *more: str, steps: int = 100) -> list[str]:
    sizes = [f"--data.total_frames={steps}", "--num_threads=1", NO_WANDB]
    return ["fit", "--config", f"conf/{config}.yaml", *tiny(config), *sizes, *more]


def child(command: list[str]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(CONF.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def go_on(folder: Path) -> list[str]:
    """The arguments that go on with what a kill has left, or start anew if that is nothing."""
    return [f"--trainer.default_root_dir={folder}"] + (["--ckpt_path=last"] if (folder / LAST).exists() else [])


def kill_at_random(command: list[str], folder: Path, draw: random.Random, longest: float) -> bool:
    """Kills the run at a moment after it has begun; False if it was over before."""
    marks = [path.stat().st_mtime_ns for path in folder.glob("config.yaml")]
    process = child(["-m", "lit_mbrl", *command, *go_on(folder)])
    try:
        deadline = time.monotonic() + 240
        while [path.stat().st_mtime_ns for path in folder.glob("config.yaml")] == marks:
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(draw.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        return process.wait(timeout=30) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def assert_same_run(folder: Path, whole: Path) -> None:
    ours, theirs = (load(path / LAST) for path in (folder, whole))
    for key in ("state_dict", "optimizer_states", "lit_mbrl", "skipped"):
        assert same(ours[key], theirs[key]), key
    assert same(comparable(ours["OffPolicy"]), comparable(theirs["OffPolicy"]))
    assert same(ours.get("own_optimizers"), theirs.get("own_optimizers"))
    assert rows(folder) == rows(whole)


def compare(command: list[str], draw: random.Random) -> None:
    start = time.monotonic()
    assert main([*command, "--trainer.default_root_dir=whole"]) == 0
    seconds = time.monotonic() - start
    for attempt in range(5):
        folder = Path(f"killed{attempt}")
        if kill_at_random(command, folder, draw, seconds):
            break
    else:
        pytest.fail("five runs in a row were over before they could be killed")
    assert main([*command, *go_on(folder)]) == 0
    assert_same_run(folder, Path("whole"))


def test_kill_at_a_random_moment(draw: random.Random) -> None:
    compare(arguments("sac", *draw.choice([[], MUJOCO])), draw)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "env"),
    [(config, OWN_ENV.get(config, [])) for config in CONFIGS]
    + [(config, MUJOCO) for config in CONFIGS if config not in ONE_ENV],
    ids=lambda value: value if isinstance(value, str) else "MuJoCo" if value == MUJOCO else "its own",
)
def test_kill_every_config_at_a_random_moment(config: str, env: list[str], draw: random.Random) -> None:
    compare(arguments(config, *env), draw)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["sac", "td3", "sac_svg", "sac_svg_ensemble", "memr"])
def test_kill_a_compiled_run(config: str, draw: random.Random) -> None:
    compare(arguments(config, "--model.compile=true"), draw)


@pytest.mark.slow
def test_twenty_kills_in_a_row_lose_nothing(draw: random.Random) -> None:
    command = arguments("sac_svg", steps=3000)
    kills, steps, folder = 0, 0, Path("killed")
    while kills < 20:
        assert kill_at_random(command, folder, draw, 1.0), "the run was over before the twentieth kill"
        kills += 1
        if (folder / LAST).exists():
            saved = load(folder / LAST)["lit_mbrl"]["env_steps"]
            assert saved >= steps
            steps = saved
    assert steps > 20
    assert main([*command, *go_on(folder)]) == 0
    assert main([*command, "--trainer.default_root_dir=whole"]) == 0
    assert_same_run(folder, Path("whole"))


def moments() -> Iterator[pytest.ParameterSet]:
    """Calls on the way of the first three checkpoints to the disk; the two of them that matter most are always run."""
    fast = {("replace", 4), ("fsync", 5)}
    for name, calls in (("replace", 6), ("fsync", 12), ("link", 1)):
        for nth in range(1, calls + 1):
            yield pytest.param(name, nth, marks=[] if (name, nth) in fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "nth"), list(moments()))
def test_kill_while_a_checkpoint_is_written(name: str, nth: int) -> None:
    command = arguments("sac")
    assert main([*command, "--trainer.default_root_dir=whole"]) == 0
    folder = Path("killed")
    process = child(["-c", SUICIDE, name, str(nth), *command, *go_on(folder)])
    assert process.wait(timeout=120) == -signal.SIGKILL
    before = load(folder / LAST)["lit_mbrl"]["env_steps"] if (folder / LAST).exists() else 0
    assert before in (0, 40, 60, 80, 100)
    assert main([*command, *go_on(folder)]) == 0
    assert_same_run(folder, Path("whole"))
    leftovers = {path.name for path in (folder / "checkpoints").iterdir()} - {"last.ckpt", "best.ckpt", "replay"}
    assert leftovers <= {"best.ckpt.tmp"}  # where the next best one is put
