"""The library as a wheel, in a folder that is not a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--data.total_frames=60", "--data.epoch_frames=60", "--data.learning_starts=40", "--data.eval_episodes=1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "lit_mbrl", "callbacks", "conf"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    return folder


def test_nothing_of_it_lies_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lit_mbrl"}


def test_it_is_complete(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files", "lit_mbrl", "conf"], cwd=ROOT, capture_output=True, text=True).stdout
    files = tracked.split() or [
        path.relative_to(ROOT).as_posix()
        for folder in ("lit_mbrl", "conf")
        for path in (ROOT / folder).rglob("*.[pyx]*")
        if path.suffix in (".py", ".yaml", ".xml", ".typed")
    ]
    expected = {f"lit_mbrl/{name}" if name.startswith("conf/") else name for name in files}
    assert expected - names == set()


def test_it_trains_beside_files_of_the_names_of_ours(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "callbacks.py").write_text("from lightning import Callback\n\n\nclass Mine(Callback):\n    pass\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("trainer:\n  callbacks+:\n  - class_path: callbacks.Mine\n")
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lit_mbrl", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import lit_mbrl, lit_mbrl.callbacks as c; print(lit_mbrl.__file__, c.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert [Path(path).is_relative_to(installed) for path in found.stdout.split()] == [True, True], found.stderr
    assert "conf/sac.yaml" in run("list")
    out = run("fit", "--config=conf/sac.yaml", "--config=conf/mine.yaml", *SMALL)
    assert "Finished: 60 env steps" in out
    (folder,) = tmp_path.glob("runs/*/*/seed0-*")
    assert "class_path: callbacks.Mine" in (folder / "config.yaml").read_text()
    assert "eval return" in run("validate", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trust")
