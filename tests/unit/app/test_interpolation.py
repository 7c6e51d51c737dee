"""Interpolations have their values in runs, too, and what has none is told by the name of its option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import main
from lit_mbrl.app.interpolation import resolve
from lit_mbrl.utils.errors import OptionError
from tests.helpers.command_line import SAC, run_folders


def test_a_run_has_the_values(work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    (work / "mine.yaml").write_text(
        "model:\n  init_args:\n    actor_lr: 0.002\n    critic_lr: ${model.init_args.actor_lr}\n"
        "    alpha_lr: ${.critic_lr}\ndata:\n  init_args:\n    frames_per_batch: ${oc.env:FRAMES,1}\n"
    )
    monkeypatch.setenv("GRAVITY", "9.5")
    more = ["--config=mine.yaml", "--data.env.kwargs.g=${oc.env:GRAVITY}", "--model.gamma=${oc.env:GAMMA,5e-1}"]
    more += ["--trainer.default_root_dir=runs/a/b/lr_${model.init_args.alpha_lr}", "--trainer.max_epochs=1"]
    assert main([*SAC, *more]) == 0
    (folder,) = run_folders(work)
    assert folder.name == "lr_0.002"
    text = (folder / "config.yaml").read_text()
    config = yaml.safe_load(text)
    model, data = (config[name]["init_args"] for name in ("model", "data"))
    assert [model[name] for name in ("actor_lr", "critic_lr", "alpha_lr", "gamma")] == [0.002, 0.002, 0.002, 0.5]
    assert data["env"]["kwargs"] == {"g": 9.5} and data["frames_per_batch"] == 1
    assert "${" not in text


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--model.critic_lr=${model.actor_lr}",
            "there is no model.actor_lr (did you mean 'model.init_args.a",
        ),
        ("--model.critic_lr=${.critic_lr}", "an interpolation that ends, but this one leads back to itself"),
        ("--data.batch_size=${oc.env:NOT_SET}", "the environment variable NOT_SET to be set, or a default"),
        ("--data.env.kwargs.g=${nope:1}", "${name} or ${oc.env:NAME,default} (Unsupported interpolation type nope)"),
        ("--seed_everything=${oc.env:NOT_SET", "${name} or ${oc.env:NAME,default} (missing BRACE_CLOSE"),
    ],
)
def test_without_a_value_the_option_is_named(
    argument: str, line: str, work: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main([*SAC, argument]) == 2
    out, err = capfd.readouterr()
    option, _, value = argument.partition("=")
    assert err.startswith(f"error: {option}={value}: expected ") and line in err and err.count("\n") == 1
    assert out == "" and list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${b}", 3),
        ("${oc.env:NOT_SET,${b}}", 3),
        ("${oc.env:NOT_SET,null}", None),
        ("${oc.env:TEXT}", "a: b: c"),
        ("${oc.env:DATE}", "2020-01-01"),
        ("x${b}y", "x3y"),
        ("${c}", {"d": [3, "${"[:1]]}),
        ("${c.d[0]}", 3),
    ],
)
def test_values(value: str, result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT", "a: b: c")
    monkeypatch.setenv("DATE", "2020-01-01")
    assert resolve({"a": value, "b": 3, "c": {"d": ["${b}", "$"]}})["a"] == result


@pytest.mark.parametrize(
    "tree",
    [
        lambda: {"model": {"init_args": {"a": "${..b}", "b": "${..a}"}}},
        lambda: {"model": {"init_args": {"a": "${model}"}}},
        lambda: {"model": {"init_args": {"a": ["${model.init_args.a}"]}}},
    ],
)
def test_circles(tree: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(OptionError, match="^--model.a"):
        resolve(tree())
