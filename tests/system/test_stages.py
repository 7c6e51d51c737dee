"""Runs of several stages: one at a time, skipped when they are over, and done anew when their options change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lit_mbrl.app.cli import main
from tests.helpers.command_line import NO_WANDB, SAC, load, rows, tiny

RUN = ["fit", "--config", "conf/world_models.yaml", *tiny("world_models"), "--data.env.name=Pendulum-v1", NO_WANDB]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*RUN, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


def checkpoints(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "checkpoints").glob("*.ckpt")}


def go_on(folder: Path, *options: str) -> int:
    return main([*RUN, f"--trainer.default_root_dir={folder}", "--ckpt_path=last", *options])


def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_stages_one_at_a_time_are_the_whole_run(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert main([*RUN, f"--trainer.default_root_dir={folder}", "--stage=vae"]) == 0
    assert "Stage vae is over. Go on: python -m lit_mbrl fit" in (out := capfd.readouterr().out)
    assert "--stage" not in out.partition("Go on:")[2]
    assert {"after_collect", "after_vae"} <= checkpoints(folder) and "after_rnn" not in checkpoints(folder)
    assert go_on(folder, "--stage=rnn") == 0
    out = capfd.readouterr().out
    assert "stage rnn: from" in out or "Stage rnn is over" in out
    assert "after_rnn" in checkpoints(folder)
    assert go_on(folder) == 0
    assert {"after_collect", "after_vae", "after_rnn", "after_controller"} <= checkpoints(folder)
    first, second = (load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (folder, whole))
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]
    assert rows(folder) == rows(whole)


def test_a_changed_option_does_its_stage_and_later_ones_anew(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = copied(whole, tmp_path)
    before = load(folder / "checkpoints" / "after_vae.ckpt")
    assert go_on(folder, "--model.hidden=3") == 0
    out = capfd.readouterr().out
    assert "stages rnn, controller are done anew, since model.hidden was 2 and is 3" in out
    after = load(folder / "checkpoints" / "last.ckpt")
    assert after["lit_mbrl"]["env_steps"] == before["lit_mbrl"]["env_steps"] == 60
    for name, value in before["state_dict"].items():
        if name.startswith("vae."):
            assert torch.equal(after["state_dict"][name], value)
    assert after["state_dict"]["controller.weight"].shape[1] == 2 + 3
    assert after["lit_mbrl"]["train_steps"] == load(whole / "checkpoints" / "last.ckpt")["lit_mbrl"]["train_steps"]


def test_options_of_stages_to_come_are_free(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = copied(whole, tmp_path)
    options = [f"--ckpt_path={folder}/checkpoints/after_rnn.ckpt", "--model.generations=3", "--model.population=3"]
    assert main([*RUN, *options]) == 0
    out = capfd.readouterr().out
    assert "anew" not in out and "model.generations 2 -> 3" in out
    (told,) = (
        state["told"]
        for state in load(folder / "checkpoints" / "last.ckpt")["optimizer_states"][2]["state"].values()
        if "told" in state
    )
    assert told.shape == (3, 3)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--model.collect_policy=random"],
            "--model.collect_policy=random: expected random_networks, as in the checkpoint",
        ),
        (["--stage=vae"], "--stage=vae: expected one of the stages to come: there are none"),
        (["--stage=dream"], "--stage=dream: expected one of the stages to come"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: list[str], line: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = copied(whole, tmp_path)
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    assert go_on(folder, *options) == 2
    assert f"error: {line}" in capfd.readouterr().err
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_checkpoint_that_has_gone_is_missed(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = copied(whole, tmp_path)
    (folder / "checkpoints" / "after_vae.ckpt").unlink()
    assert go_on(folder, "--model.rnn_steps=4") == 2
    err = capfd.readouterr().err
    assert "--model.rnn_steps=4: expected 3, as in the checkpoint: stage rnn has begun, and there is no" in err


def test_an_evaluation_has_no_stage(whole: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(["validate", f"--ckpt_path={whole}/checkpoints/last.ckpt", "--stage=vae"]) == 2
    assert "error: --stage=vae: expected null: validate trains nothing" in capfd.readouterr().err


def test_a_run_of_one_stage_has_none_to_name(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main([*SAC, "--stage=vae", f"--trainer.default_root_dir={tmp_path}/run"]) == 2
    assert "error: --stage=vae: expected null: a run of SAC has but one stage" in capfd.readouterr().err
