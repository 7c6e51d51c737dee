"""The words of a command line: what is typed holds, whatever the order."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.arguments import in_order_of_precedence
from lit_mbrl.app.cli import main
from tests.helpers.command_line import rows

COMMANDS = ("fit", "validate")
OPTIONS = [["--data.batch_size=7"], ["--data.env.name", "Swimmer-v5"], ["--model.gamma=0.5"], ["--model=TD3"]]


def printed(capfd: pytest.CaptureFixture, words: list[str]) -> dict[str, Any]:
    assert main([*words, "--print_config"]) == 0
    return yaml.safe_load(capfd.readouterr().out)


def test_options_hold_in_every_permutation() -> None:
    files = ["--config=a.yaml", "-c", "b.yaml", "--config", "c.yaml"]
    chunks = [["fit"], files, *OPTIONS]
    for order in permutations(chunks):
        words = in_order_of_precedence([word for chunk in order for word in chunk], COMMANDS)
        assert words[: 1 + len(files)] == ["fit", *files]
        assert words.index("--model=TD3") < words.index("--model.gamma=0.5")
        assert words[words.index("--data.env.name") + 1] == "Swimmer-v5"
        assert sorted(words) == sorted(word for chunk in chunks for word in chunk)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
def test_the_command_line_goes_before_files_in_any_order(
    order: tuple[int, ...], work: Path, capfd: pytest.CaptureFixture
) -> None:
    chunks = [["--config", "conf/sac_svg.yaml"], *OPTIONS]
    config = printed(capfd, ["fit", *(word for index in order for word in chunks[index])])
    assert config["model"]["class_path"].endswith("TD3") and config["model"]["init_args"]["gamma"] == 0.5
    assert config["data"]["init_args"]["batch_size"] == 7
    assert config["data"]["init_args"]["env"]["name"] == "Swimmer-v5"


def test_of_several_files_the_later_ones_win(work: Path, capfd: pytest.CaptureFixture) -> None:
    (work / "mine.yaml").write_text("model:\n  init_args:\n    horizon: 5\n    gamma: 0.5\n")
    words = ["--model.gamma=0.25", "--config=conf/sac_svg.yaml", "fit", "--config", "mine.yaml"]
    options = printed(capfd, words)["model"]["init_args"]
    assert options["horizon"] == 5 and options["gamma"] == 0.25
    options = printed(capfd, ["--model.gamma=0.25", "--config=conf/sac_svg.yaml", "fit", "--config=conf/sac.yaml"])
    assert options["model"]["class_path"].endswith(".SAC") and options["model"]["init_args"]["gamma"] == 0.25


def test_additions_to_a_list_keep_their_order() -> None:
    words = ["fit", "--trainer.callbacks.tau=1", "--trainer.callbacks+=A", "--trainer.callbacks.x=2"]
    assert in_order_of_precedence([*words, "--config=a.yaml"], COMMANDS) == ["fit", "--config=a.yaml", *words[1:]]


@pytest.mark.parametrize("order", list(permutations(range(3)))[1::2])
def test_a_checkpoint_and_the_config_of_its_run(
    order: tuple[int, ...], finished: Path, work: Path, capfd: pytest.CaptureFixture
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    chunks = [["--ckpt_path", str(last)], ["--config", str(finished / "config.yaml")], ["--seed_everything=0"]]
    words = [word for index in order for word in chunks[index]]
    assert main(["validate", *words]) == 0
    assert f"eval return {float(rows(finished)[-1]['eval/return']):.1f} " in capfd.readouterr().out
    assert main(["evaluate", *words, "--episodes=1"]) == 0
    assert "after 60 env steps" in capfd.readouterr().out
