"""A Dreamer on the command line, with pictures: it goes on exactly, and mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_mbrl.app.cli import main
from tests.helpers.command_line import NO_WANDB, SAC, comparable, load, rows, same, tiny

pytestmark = pytest.mark.usefixtures("work")
# Evaluations, and so checkpoints, fall into the middle of episodes of 5 steps.
DREAMER = ["fit", "--config", "conf/maxent_dreamer.yaml", *tiny("maxent_dreamer"), NO_WANDB, "--data.epoch_frames=28"]


def test_a_resumed_run_is_the_whole_run_and_acting_remembers_the_episode(work: Path) -> None:
    assert main([*DREAMER, "--trainer.default_root_dir=whole"]) == 0
    assert main([*DREAMER, "--trainer.default_root_dir=run", "--trainer.max_epochs=1"]) == 0
    memory = load(work / "run" / "checkpoints" / "last.ckpt")["state_dict"]["memory._extra_state"]
    assert memory.shape == (1, 8 + 8 + 1) and memory.abs().sum() > 0
    assert main([*DREAMER, "--trainer.default_root_dir=run", "--ckpt_path=last"]) == 0
    ours, theirs = (load(work / name / "checkpoints" / "last.ckpt") for name in ("run", "whole"))
    assert same(ours["state_dict"], theirs["state_dict"])
    assert same(ours["optimizer_states"], theirs["optimizer_states"])
    assert same(comparable(ours["OffPolicy"]), comparable(theirs["OffPolicy"]))
    assert rows(work / "run") == rows(work / "whole")
    coefficients = [float(row["policy/entropy_coeff"]) for row in rows(work / "whole") if row["policy/entropy_coeff"]]
    assert coefficients == sorted(coefficients, reverse=True) and 0.19 < coefficients[-1] < coefficients[0] <= 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SAC, "--data=lit_mbrl.data.SequenceReplay", "--data.env.name=Pendulum-v1"], "which learns from transitions"),
        (
            ["fit", "--config", "conf/dreamer.yaml", "--data.env.pixels.size=32"],
            "--data.env.pixels.size=32: expected 64",
        ),
        (["fit", "--config", "conf/dreamer.yaml", "--model.horizon=1"], "--model.horizon=1: expected an integer >= 2"),
        (
            ["fit", "--config", "conf/dreamer.yaml", "--model.time_order=blind_start", "--data.sequence_length=2"],
            "--data.sequence_length=2: expected at least 3",
        ),
        (["fit", "--config", "conf/planet.yaml", "--model.horizon=3"], "--model.horizon=3: PlaNet has no such option"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capfd: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    error = capfd.readouterr().err.strip()
    assert error.count("\n") == 0 and message in error
