"""A run folder is not code: a configuration that comes with a checkpoint imports nothing from the working directory."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_mbrl.app.cli import CONF, main
from lit_mbrl.utils.errors import UsageError, printable
from lit_mbrl.utils.trust import Untrusted, needs_trust, only_installed
from tests.helpers.command_line import SAC, run_folders

EVIL = "from pathlib import Path\nPath('was-run').touch()\nfrom lit_mbrl.algorithms import SAC as Evil\n"
WAYS = {
    "model": ("class_path: lit_mbrl.algorithms.SAC", "class_path: {0}.Evil"),
    "data": ("class_path: lit_mbrl.data.OffPolicy", "class_path: {0}.Evil"),
    "callback": ("class_path: lit_mbrl.callbacks.SoftTargetUpdate", "class_path: {0}.Evil"),
    "environment": ("name: Pendulum-v1", "name: {0}:Pendulum-v1"),
    "logger": ("logger: null", "logger: {{class_path: {0}.Evil}}"),
    "strategy": ("strategy: auto", "strategy: {{class_path: {0}.Evil}}"),
}


@pytest.fixture
def stranger(request: pytest.FixtureRequest, finished: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run folder that names a module of its own, in the working directory. Returns the module's name."""
    name = f"evil_{abs(hash(request.node.name))}"  # modules are imported once
    shutil.copytree(finished, "run")
    (work / f"{name}.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(work))
    return name


def poison(module: str, way: str) -> None:
    """Names the module in the run's configuration, in the checkpoint and beside it."""
    right, wrong = WAYS[way]
    path = Path("run/checkpoints/last.ckpt")
    content = torch.load(path, weights_only=True)
    assert right in content["config"]
    content["config"] = content["config"].replace(right, wrong.format(module), 1)
    path.unlink()
    torch.save(content, path)
    Path("run/config.yaml").write_text(content["config"])


@pytest.mark.parametrize("way", list(WAYS))
def test_a_checkpoint_runs_no_module_of_the_working_directory(
    way: str, stranger: str, capfd: pytest.CaptureFixture
) -> None:
    poison(stranger, way)
    commands = [["evaluate", "--ckpt_path=run/checkpoints/last.ckpt"]]
    if way in ("model", "environment"):
        commands += [
            ["validate", "--ckpt_path=run/checkpoints/last.ckpt"],
            ["fit", "--ckpt_path=run/checkpoints/last.ckpt"],
            ["fit", "--init_from=run/checkpoints/last.ckpt"],
            ["fit", "--config=run/config.yaml"],
            ["evaluate", "--ckpt_path=run/checkpoints/last.ckpt", "--config=run/config.yaml"],
        ]
    for command in commands:
        assert main(command) == 2, command
        err = capfd.readouterr().err
        assert f"{stranger}.py is no part of lit_mbrl or of an installed package: read it, then --trust runs" in err
        assert err.count("\n") == 1 and not Path("was-run").exists() and stranger not in sys.modules


def test_trust_runs_it(stranger: str) -> None:
    poison(stranger, "model")
    assert main(["validate", "--ckpt_path=run/checkpoints/last.ckpt", "--trust"]) == 0
    assert Path("was-run").exists()


def test_what_the_user_names_is_trusted(stranger: str, work: Path) -> None:
    assert main([*SAC, f"--model={stranger}.Evil", "--trainer.max_epochs=1"]) == 0
    assert Path("was-run").exists() and run_folders(work)


def test_a_real_process_imports_nothing_from_the_folder(stranger: str, work: Path) -> None:
    # A module that stands in for one that the program itself wants is not found, either.
    poison(stranger, "model")
    (work / "yaml.py").write_text(EVIL)
    code = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); sys.path.append(sys.argv.pop(1)); "
    code += "runpy.run_module('lit_mbrl', run_name='__main__', alter_sys=True)"
    arguments = [str(work), str(CONF.parent), "evaluate", "--ckpt_path=run/checkpoints/last.ckpt"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 2 and "--trust runs it" in done.stderr, done.stderr
    assert not Path("was-run").exists()


def test_modules_that_stand_in_for_installed_ones_are_passed_over(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(work))
    (work / "colorsys.py").write_text("raise AssertionError")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with only_installed(Path("run")):
        import colorsys
    assert Path(colorsys.__file__).parent != work


def test_what_is_tried_in_vain_does_no_harm(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(work))
    (work / "optional_module.py").touch()
    with only_installed(Path("run")), pytest.raises(Untrusted):
        importlib.import_module("optional_module")
    with pytest.raises(ValueError, match="another"), only_installed(Path("run")):
        with contextlib.suppress(ImportError):
            importlib.import_module("optional_module")
        raise ValueError("another")
    with pytest.raises(UsageError, match="--trust"), only_installed(Path("run")):
        importlib.import_module("optional_module")
    with only_installed(None):
        importlib.import_module("optional_module")


# ---------------------------------------------------------------------- names and links
def test_names_from_files_are_printed_without_control_characters(
    finished: Path, work: Path, capfd: pytest.CaptureFixture
) -> None:
    assert printable("a\x1b[31m\u202e\nb", keep="\n") == "a\\x1b[31m\\u202e\nb"
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    content["lit_mbrl"]["environment"] = "Pendulum\x1b]0;owned\x07\nerror: no"
    torch.save(content, "a.ckpt")
    assert main(["fit", "--init_from=a.ckpt", "--data.env.name=Swimmer-v5", "--init_parts=[log_alpha]"]) == 0
    out, err = capfd.readouterr()
    assert "\x1b]0" not in out + err, (out, err)
    assert "Pendulum\\x1b]0;owned\\x07\\nerror: no" in out
    assert main(["validate", "--ckpt_path=a.ckpt", "--model.hidden_sizes=[4]"]) == 2
    out, err = capfd.readouterr()
    assert "\x1b" not in err and err.count("\n") == 1


def test_config_is_not_written_through_a_link(work: Path) -> None:
    (work / "mine").write_text("keep")
    (work / "run" / "checkpoints").mkdir(parents=True)
    (work / "run" / ".lock").touch()
    for name in ("config.yaml", "config.yaml.tmp", "checkpoints/last.ckpt.tmp", "checkpoints/best.ckpt.tmp"):
        (work / "run" / name).symlink_to(work / "mine")
    assert main([*SAC, "--trainer.default_root_dir=run", "--trainer.max_epochs=1"]) == 0
    assert (work / "mine").read_text() == "keep"
    assert not (work / "run" / "config.yaml").is_symlink()


@pytest.mark.parametrize("way", ["model", "environment"])
def test_whether_a_run_s_folder_will_need_trust_is_known(way: str, stranger: str, work: Path) -> None:
    right, wrong = WAYS[way]
    key, value = wrong.format(stranger).split(": ", 1)
    assert not needs_trust({key: right.split(": ", 1)[1]})
    importlib.import_module(stranger)
    assert needs_trust([{"init_args": {key: value}}])
    assert not needs_trust({"notes": f"nothing of {stranger}", "number": 3, "time": "12:30"})


def test_the_line_at_the_end_says_trust(work: Path, capfd: pytest.CaptureFixture) -> None:
    (work / "mine_at_the_end.py").write_text("from lit_mbrl.algorithms import SAC\n\n\nclass Mine(SAC):\n    pass\n")
    sys.path.insert(0, str(work))
    try:
        targets = "--trainer.callbacks+=lit_mbrl.callbacks.SoftTargetUpdate"
        assert main(["fit", "--model=mine_at_the_end.Mine", *SAC[3:], targets]) == 0
    finally:
        sys.path.remove(str(work))
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.endswith(" --trust")
    command = last.partition("python -m lit_mbrl ")[2].split()
    assert main(["validate", *command[1:]]) == 0
