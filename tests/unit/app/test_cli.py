"""The command line: what users type and what they read. Resuming and mistakes are in files of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mbrl.app.cli import CONF, algorithms, main
from lit_mbrl.app.overview import COMMANDS
from lit_mbrl.app.run_folder import new_folder, run_name
from tests.helpers.command_line import NO_WANDB, SAC, rows, run_folders, tiny

CONFIGS = sorted(path for path in CONF.glob("*.yaml") if path.stem not in ("base", "qualification"))


pytestmark = pytest.mark.usefixtures("work")


# ---------------------------------------------------------------------- fit
def test_a_run_from_its_header_to_its_last_line(work: Path, capfd: pytest.CaptureFixture) -> None:
    assert main([argument for argument in SAC if argument != NO_WANDB]) == 0
    out, err = capfd.readouterr()
    (folder,) = run_folders(work)
    assert re.fullmatch(r"runs/sac/Pendulum-v1/seed0-\d{8}-\d{6}", str(folder.relative_to(work)))
    header, where, *evaluations, last = out.splitlines()
    assert re.fullmatch(
        r"SAC \(Haarnoja et al. 2018, arXiv 1812.05905\) on Pendulum-v1: observation 3, action 1, 365 parameters, "
        r"seed 0, cpu",
        header,
    )
    assert where == f"run folder: {folder.relative_to(work)}"
    assert [line.split(" env steps ")[0] for line in evaluations] == ["40/60", "60/60"]
    assert re.match(
        r"Finished: 60 env steps in \d+s, eval return -?[\d.]+ \+- [\d.]+\. Everything is in runs/sac/", last
    )
    assert last.endswith("/checkpoints/best.ckpt") and "Watch it: python -m lit_mbrl video --ckpt_path runs/" in last
    # No warning and no tip; whether the replay's size is here depends on what Lightning's log took for standard error.
    assert re.fullmatch(r"(INFO: |)replay: 61 transitions, 0.0 MB in memory when full\n|", err)
    assert {path.name for path in folder.iterdir()} == {".lock", "checkpoints", "config.yaml", "metrics.csv", "wandb"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "replay"}
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_the_command_in_the_last_line_works(work: Path, finished: Path, capfd: pytest.CaptureFixture) -> None:
    before = (finished / "config.yaml").read_bytes()
    command = ["validate", "--ckpt_path", str(finished / "checkpoints" / "best.ckpt"), "--data.eval_episodes=1"]
    assert main([*command, "--data.env.kwargs.render_mode=rgb_array"]) == 0
    out, err = capfd.readouterr()
    line = out.splitlines()[-1]
    assert re.fullmatch(
        r"eval return -?[\d.]+ \+- 0.0 over 1 episodes of 20 steps on average, after 60 env steps", line
    )
    assert "Warning" not in err and "callbacks" not in err
    assert (finished / "config.yaml").read_bytes() == before
    assert list(work.iterdir()) == []


def test_validate_repeats_the_evaluation_of_the_run(finished: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(["validate", f"--ckpt_path={finished / 'checkpoints' / 'last.ckpt'}"]) == 0
    value = float(rows(finished)[-1]["eval/return"])
    assert f"eval return {value:.1f} " in capfd.readouterr().out


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains(config: Path, work: Path) -> None:
    assert main(["fit", "--config", str(config), *tiny(config), NO_WANDB]) == 0
    (folder,) = run_folders(work)
    assert rows(folder)[-1]["step"] == "60"
    assert folder.parent.parent.name == config.stem


def test_saved_config_starts_the_same_run(finished: Path, work: Path) -> None:
    assert main(["fit", "--config", str(finished / "config.yaml"), "--trainer.default_root_dir=again"]) == 0
    assert rows(work / "again") == rows(finished)
    first, second = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (finished, work / "again"))
    first["trainer"].pop("default_root_dir")
    second["trainer"].pop("default_root_dir")
    assert first == second and first["ckpt_path"] is None


def test_table_is_written_whatever_the_loggers(work: Path) -> None:
    assert main([*SAC, "--trainer.logger=false", "--trainer.default_root_dir=a"]) == 0
    csv_logger = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: elsewhere}}"
    assert main([*SAC, f"--trainer.logger={csv_logger}", "--trainer.default_root_dir=b"]) == 0
    assert rows(work / "a") == rows(work / "b") != []
    assert list(work.glob("elsewhere/**/metrics.csv"))


def test_trials_of_agents_side_by_side_have_a_folder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20200101-000000")
    names = []
    for trial in ("one", "two"):  # neither has made its folder yet
        monkeypatch.setenv("WANDB_RUN_ID", trial)
        names.append(new_folder(Path("runs/sac/Pendulum-v1/seed0")).name)
    assert names == ["seed0-20200101-000000-one", "seed0-20200101-000000-two"]


def test_two_runs_in_one_second_have_two_folders(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20200101-000000")
    family = run_name(["conf/sac.yaml"], "SAC", "dmc/walker-walk", 3)
    names = []
    for _ in range(3):
        names.append(new_folder(family))
        names[-1].mkdir(parents=True)
    stem = "runs/sac/dmc-walker-walk/seed3-20200101-000000"
    assert [str(name) for name in names] == [stem, f"{stem}-2", f"{stem}-3"]


def test_launched_processes_share_the_folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = run_name([], "SACSVG", "Pendulum-v1", 0)
    assert family == Path("runs/sacsvg/Pendulum-v1/seed0")
    folder = new_folder(family)
    folder.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert new_folder(family) == folder


# ---------------------------------------------------------------------- config
def printed_config(capfd: pytest.CaptureFixture, *arguments: str) -> dict[str, Any]:
    assert main(["fit", *arguments, "--print_config"]) == 0
    return yaml.safe_load(capfd.readouterr().out)


@pytest.mark.parametrize("section", ["data.env", "data.init_args.env"])
def test_null_on_the_command_line_takes_a_config_s_value_back(section: str, capfd: pytest.CaptureFixture) -> None:
    given = ("--data.env.max_episode_steps=7", "--data.env.pixels.camera=track", f"--{section}.max_episode_steps=null")
    config = printed_config(capfd, "--config=conf/dreamer.yaml", *given, f"--{section}.pixels.camera=null")
    env = config["data"]["init_args"]["env"]
    assert env["max_episode_steps"] is None and env["pixels"] == {"size": 64, "camera": None, "fast": True}
    config = printed_config(capfd, "--config=conf/dreamer.yaml", f"--{section}.pixels=null")
    assert config["data"]["init_args"]["env"] == env | {"pixels": None}
    config = printed_config(capfd, "--config=conf/dreamer.yaml", f"--{section}.pixels", "null")
    assert config["data"]["init_args"]["env"]["pixels"] is None


def test_null_for_an_argument_of_the_environment_is_null(capfd: pytest.CaptureFixture) -> None:
    given = ("--data.env.kwargs.g=9.5", "--data.env.kwargs.render_mode=null", "--data.env.eval_kwargs.g", "null")
    env = printed_config(capfd, "--config=conf/sac.yaml", *given)["data"]["init_args"]["env"]
    assert env["kwargs"] == {"g": 9.5, "render_mode": None} and env["eval_kwargs"] == {"g": None}


def test_interpolation_sees_the_command_line(work: Path, capfd: pytest.CaptureFixture) -> None:
    (work / "mine.yaml").write_text(
        "model:\n  class_path: SAC\ndata:\n  init_args:\n    learning_starts: 30\n"
        "    epoch_frames: ${data.init_args.learning_starts}\n"
    )
    config = printed_config(capfd, "--config", "mine.yaml")
    assert config["data"]["init_args"]["epoch_frames"] == 30
    config = printed_config(capfd, "--config", "mine.yaml", "--data.learning_starts=70")
    assert config["data"]["init_args"]["epoch_frames"] == 70


def test_command_line_goes_before_config_before_base(capfd: pytest.CaptureFixture) -> None:
    base = yaml.safe_load((CONF / "base.yaml").read_text())
    svg = yaml.safe_load((CONF / "sac_svg.yaml").read_text())
    config = printed_config(capfd, "--config", "conf/sac_svg.yaml", "--model.horizon=3", "--data.env.name=Swimmer-v5")
    assert config["model"]["init_args"]["horizon"] == 3
    assert config["data"]["init_args"]["env"]["name"] == "Swimmer-v5"
    assert config["model"]["init_args"]["hidden_sizes"] == svg["model"]["init_args"]["hidden_sizes"]
    assert config["trainer"]["log_every_n_steps"] == base["trainer"]["log_every_n_steps"]


def test_callbacks_are_appended(capfd: pytest.CaptureFixture) -> None:
    more = ["--trainer.callbacks+=lit_mbrl.callbacks.EntropyAnnealing", "--trainer.callbacks.initial=0"]
    more += ["--trainer.callbacks.final=-1", "--trainer.callbacks.schedule_steps=10"]
    config = printed_config(capfd, "--config", "conf/sac.yaml", *more)
    names = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert names == ["lit_mbrl.callbacks.SoftTargetUpdate", "lit_mbrl.callbacks.EntropyAnnealing"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fit", "--help"], "--checkpoint.every_epochs"),
        (["fit", "--model.help", "SACSVG"], "--model.horizon"),
    ],
)
def test_help(arguments: list[str], text: str, capfd: pytest.CaptureFixture) -> None:
    assert main(arguments) == 0
    assert text in capfd.readouterr().out


def test_the_overview_names_every_command_with_an_example_and_needs_no_torch(work: Path) -> None:
    code = (
        "import sys; from lit_mbrl.app.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CONF.parent)!r}); {code}"]

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False)

    shown = run("--help")
    assert shown.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown.stdout, re.M) and f"python -m lit_mbrl {name}" in shown.stdout
    for words, line in (
        (["evalute", "--episodes=3"], "error: evalute: expected one of "),
        ([], "error: no command: expected one of "),
    ):
        wrong = run(*words)
        assert wrong.returncode == 2 and wrong.stderr.startswith(line) and wrong.stderr.count("\n") == 1
    assert "(did you mean 'evaluate'?)" in run("evalute").stderr


def test_list_names_every_algorithm_and_config_without_torch(work: Path) -> None:
    code = "import sys; from lit_mbrl.app.cli import main; main(['list']); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CONF.parent)!r}); {code}"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for config in CONFIGS:
        assert f"conf/{config.name}" in table
    for name, paper in algorithms():
        assert re.search(rf"^{name} +{re.escape(paper)} +conf/", table, re.M), name


# ---------------------------------------------------------------------- bugs
@pytest.mark.parametrize("error", [AttributeError, ValueError])
@pytest.mark.parametrize(
    "where",
    [
        "lit_mbrl.algorithms.sac.take",  # while the algorithm is made
        "lit_mbrl.data.OffPolicy.check",
        "lit_mbrl.algorithms.SAC.build",
        "lit_mbrl.algorithms.SAC.actor_loss",
    ],
)
def test_bugs_keep_their_traceback(where: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise error("a bug of ours")

    monkeypatch.setattr(where, bug)
    with pytest.raises((error, ValueError), match="a bug of ours"):  # jsonargparse wraps what constructors raise
        main(SAC)
