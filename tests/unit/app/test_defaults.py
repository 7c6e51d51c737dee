"""`defaults` of config files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import CONF, main
from lit_mbrl.app.defaults import read_config
from lit_mbrl.utils.errors import OptionError

COMMON = """\
model: {class_path: SAC, init_args: {gamma: 0.9, hidden_sizes: [8, 8], actor_lr: 1.0e-3}}
data: {init_args: {env: {name: Pendulum-v1, num_envs: 2}, total_frames: 400}}
trainer: {callbacks: [{class_path: lit_mbrl.callbacks.SoftTargetUpdate}]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "common.yaml").write_text(COMMON)
    middle = "model: {init_args: {gamma: 0.95, alpha_lr: 2.0e-3}}\n"
    (tmp_path / "middle.yaml").write_text(f"defaults: [common.yaml]\n{middle}")
    task = "model: {init_args: {hidden_sizes: [16]}}\ndata: {init_args: {env: {num_envs: 3}}}\n"
    (tmp_path / "deep" / "task.yaml").write_text(f"defaults: [../middle.yaml]\n{task}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["fit", *arguments, "--print_config"]) == 0
    return yaml.safe_load(capfd.readouterr().out)


def test_a_file_says_only_what_differs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = printed(["--config=deep/task.yaml"], capfd)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert (model["gamma"], model["hidden_sizes"], model["alpha_lr"], model["actor_lr"]) == (0.95, [16], 2e-3, 1e-3)
    assert (data["env"]["name"], data["env"]["num_envs"], data["total_frames"]) == ("Pendulum-v1", 3, 400)
    assert "defaults" not in config


def test_other_files_and_options_keep_their_order(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "more.yaml").write_text("model: {class_path: SAC, init_args: {gamma: 0.5}}\n")
    for words in (["--config", "deep/task.yaml", "--config=more.yaml"], ["-c", "deep/task.yaml", "-c", "more.yaml"]):
        assert printed(words, capfd)["model"]["init_args"]["gamma"] == 0.5
    last = ["--config=more.yaml", "--config=deep/task.yaml", "--data.total_frames=600"]
    config = printed(last, capfd)
    assert config["model"]["init_args"]["gamma"] == 0.95
    assert config["data"]["init_args"]["total_frames"] == 600


def test_of_several_the_later_win(folder: Path) -> None:
    (folder / "other.yaml").write_text("model: {init_args: {gamma: 0.5}}\n")
    (folder / "both.yaml").write_text("defaults: [middle.yaml, other.yaml]\n")
    assert read_config(folder / "both.yaml")["model"]["init_args"]["gamma"] == 0.5


def test_a_run_is_named_after_its_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = ["--data.total_frames=60", "--data.epoch_frames=60", "--data.learning_starts=30", "--data.eval_episodes=1"]
    assert (
        main(
            [
                "fit",
                "--config=deep/task.yaml",
                *small,
                "--trainer.logger=null",
                "--data.batch_size=8",
                "--data.frames_per_batch=3",
            ]
        )
        == 0
    )
    (run,) = (folder / "runs" / "task").glob("Pendulum-v1/seed0-*")
    assert "defaults" not in yaml.safe_load((run / "config.yaml").read_text())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("defaults: [missing.yaml]\n", "missing.yaml"),
        ("defaults: middle.yaml\n", "a list of config files"),
        ("defaults: [1]\n", "a list of config files"),
        ("defaults: [wrong.yaml]\n", "takes over itself"),
        ("defaults: [list.yaml]\n", "YAML with entries"),
        ("defaults: [deep]\n", "no such file"),
    ],
)
def test_mistakes_are_one_line(folder: Path, text: str, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.yaml").write_text(text)
    (folder / "list.yaml").write_text("- 1\n")
    assert main(["fit", "--config=wrong.yaml"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and line in error, error


def test_circles_are_found(folder: Path) -> None:
    (folder / "a.yaml").write_text("defaults: [b.yaml]\n")
    (folder / "b.yaml").write_text("defaults: [a.yaml]\n")
    with pytest.raises(OptionError, match="takes over itself"):
        read_config(folder / "a.yaml")


def test_every_shipped_config_with_defaults_is_short() -> None:
    with_defaults = [path for path in CONF.rglob("*.yaml") if "\ndefaults:" in path.read_text()]
    assert len(with_defaults) > 30
    assert all(len(path.read_text().splitlines()) <= 25 for path in with_defaults)
