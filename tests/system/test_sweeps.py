"""The sweeps of `conf/sweeps`, by the real `wandb sweep` and `wandb agent`, against a server on loopback."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lit_mbrl.app.cli import CONF, main
from tests.helpers.wandb_server import Run, WandbServer, trials

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((CONF / "sweeps").glob("*.yaml"))
# The same experiments, a few steps long and with small networks.
TINY = [
    "--data.total_frames=60",
    "--data.learning_starts=20",
    "--data.epoch_frames=20",
    "--data.eval_episodes=1",
    "--data.env.max_episode_steps=20",
    "--data.batch_size=8",
    "--data.sequence_batch_size=8",
    "--model.hidden_sizes=[8]",
    "--model.model_hidden_size=8",
    "--trainer.accelerator=cpu",
    "--num_threads=1",
]
FRUITBOT = [
    "--data.total_frames=60",
    "--data.epoch_frames=20",
    "--data.env.num_envs=2",
    "--data.env.max_episode_steps=20",
    "--data.rollout_steps=10",
    "--data.num_epochs=1",
    "--data.batch_size=10",
    "--data.eval_episodes=1",
    "--model.encoder.channels=[2]",
    "--trainer.accelerator=cpu",
    "--num_threads=1",
]


class Kill(Callback):
    """Kills one of a sweep's trials, with all of its process group, between two evaluations."""

    def __init__(self, trial: str) -> None:
        self.trial = trial

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if os.environ.get("WANDB_RUN_ID") == self.trial and pl_module.env_steps == 50:
            os.killpg(0, signal.SIGKILL)


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """A server without sweeps or runs."""
    with WandbServer() as server:
        yield server


class Shell:
    """Runs commands as somebody would who has logged in to the server."""

    def __init__(self, server: WandbServer, folder: Path) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        self._variables = inherited | {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "x" * 40,
            "WANDB_ERROR_REPORTING": "false",
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
        }
        self._variables.pop("LIT_MBRL_RUN_FOLDER", None)

    def __call__(self, *command: str) -> str:
        """What the command prints; it has to succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run_sweep(self, file: Path, counts: Sequence[int], *more: str) -> None:
        """Creates a sweep from a file, with more arguments in its command, and has agents run trials, all at once.

        Args:
            file: the sweep.
            counts: trials per agent.
            *more: arguments.
        """
        config = yaml.safe_load(file.read_text())
        config["command"] += more
        copy = self.folder / file.name
        copy.write_text(yaml.safe_dump(config, sort_keys=False))
        created = self("wandb", "sweep", str(copy))
        found = re.search(r"Run sweep agent with: (wandb agent \S+)", created)
        assert found, created
        with ThreadPoolExecutor(len(counts)) as agents:
            list(agents.map(lambda count: self(*found[1].split(), "--count", str(count)), counts))


@pytest.fixture
def shell(server: WandbServer, tmp_path: Path) -> Shell:
    """In an empty folder."""
    return Shell(server, tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def evaluations(run: Run) -> list[tuple[int, float]]:
    """Environment step and return of the evaluations that the server has."""
    return [(row["env_steps"], row["eval/return"]) for row in run.history if "eval/return" in row]


def folder_of(run: Run, directory: Path) -> Path:
    """The run folder of a trial, which has its id in its name."""
    (config,) = directory.glob(f"runs/*/*/*-{run.id}/config.yaml")
    return config.parent


# ---------------------------------------------------------------------- real trials
@pytest.mark.slow  # a minute; the fast suite has room for five
def test_three_trials_one_of_them_killed_and_resumed(server: WandbServer, shell: Shell) -> None:
    file = CONF / "sweeps" / "seeds.yaml"
    kill = ["--trainer.callbacks+=tests.system.test_sweeps.Kill", "--trainer.callbacks.trial=trial1"]
    shell.run_sweep(file, [2, 1], *TINY, "--trainer.callbacks.upload_best=true", *kill)
    assert server.unknown == []
    assert server.given == {f"trial{seed}": {"seed_everything": seed} for seed in range(3)}
    first, killed, last = (server.runs[f"trial{i}"] for i in range(3))
    wait_for(lambda: killed.exit_code is not None)
    assert [run.state for run in (first, killed, last)] == ["finished", "failed", "finished"]
    assert killed.exit_code == 137
    for seed, run in enumerate((first, killed, last)):
        assert run.sweep == "sweep0" and run.config["seed_everything"] == seed
    for run in (first, last):
        assert run.config["data.env.name"] == "poplin/Hopper"
        assert run.config["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert [steps for steps, _ in evaluations(run)] == [40, 60]
    assert evaluations(first) != evaluations(last)

    folder = folder_of(first, shell.folder)
    with (folder / "metrics.csv").open(newline="") as table:
        written = [float(row["eval/return"]) for row in csv.DictReader(table) if row["eval/return"]]
    assert [value for _, value in evaluations(first)] == pytest.approx(written)
    assert first.artifacts.count("checkpoint-trial0") == 1 and "checkpoint-trial1" not in killed.artifacts
    assert first.files["checkpoint-trial0/best.ckpt"] == (folder / "checkpoints" / "best.ckpt").read_bytes()
    assert first.files[f"{folder.name}/config.yaml"] == (folder / "config.yaml").read_bytes()

    # The killed trial goes on by hand, in the same run of the same sweep. W&B sends every few seconds, so the kill may
    # have taken the evaluation at 40 with it; the checkpoint has it, and so has the table.
    folder = folder_of(killed, shell.folder)
    shell("python", "-m", "lit_mbrl", "fit", "--ckpt_path", str(folder / "checkpoints" / "last.ckpt"))
    assert set(server.runs) == {"trial0", "trial1", "trial2"}
    assert killed.state == "finished" and killed.sweep == "sweep0"
    assert evaluations(killed)[-1][0] == 60 and killed.config["data.env.name"] == "poplin/Hopper"
    (name,) = [name for name in killed.files if name.startswith("media/table/evaluation")]
    assert [row[0] for row in json.loads(killed.files[name])["data"]] == [40, 60]
    assert server.unknown == []


@pytest.mark.slow  # a minute
def test_agents_make_the_runs_of_a_table_and_the_command_reports_them(server: WandbServer, shell: Shell) -> None:
    paper = ["python", "-m", "lit_mbrl", "paper", "lecture/dyna_q", "--budget=smoke", "--variants=n_0,n_5"]
    written = shell(*paper, "--launcher=wandb")
    shell.run_sweep(shell.folder / re.findall(r"written: (\S+)", written)[0], [2, 2])
    assert server.unknown == []
    wanted = [{"seeds": seed, "tasks": "maze", "variants": variant} for seed in (10, 11) for variant in ("n_0", "n_5")]
    assert sorted(server.given.values(), key=str) == wanted
    for trial, given in server.given.items():
        config = server.runs[trial].config
        planning = int(given["variants"].removeprefix("n_"))
        assert (config["seed_everything"], config["model.planning_steps"]) == (given["seeds"], planning)
    assert "all runs are finished" in shell(*paper)
    assert (shell.folder / "runs/paper/report/lecture/dyna_q/smoke/index.html").is_file()


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_three_trials(file: Path, server: WandbServer, shell: Shell) -> None:
    on_policy = file.stem.startswith("fruitbot")
    if on_policy and importlib.util.find_spec("envpool") is None:
        pytest.skip("Procgen is not installed: pip install '.[procgen]', Qt 5")
    shell.run_sweep(file, [3], *(FRUITBOT if on_policy else TINY))
    config = yaml.safe_load(file.read_text())
    config["parameters"] = server.sweeps["sweep0"]["parameters"]  # with the distributions that `wandb sweep` fills in
    assert list(server.given.values()) == list(itertools.islice(trials(config), 3))
    assert [run.state for run in server.runs.values()] == ["finished"] * 3
    for run in server.runs.values():
        assert server.given[run.id].items() <= run.config.items()
        assert [steps for steps, _ in evaluations(run)] == ([20, 40, 60] if on_policy else [40, 60])


def test_fruitbot_s_grids_are_logarithmic() -> None:
    for name, option in (("entropy_bonus", "bonus_coeff"), ("max_entropy", "entropy_coeff")):
        parameters = yaml.safe_load((CONF / "sweeps" / f"fruitbot_{name}.yaml").read_text())["parameters"]
        assert list(parameters) == [f"model.{option}"]
        values = parameters[f"model.{option}"]["values"]
        assert (values[0], values[-1]) == (0.0001, 1)
        assert all(2.9 < b / a < 3.4 for a, b in itertools.pairwise(values))
        assert {"entropy_bonus": 0.01, "max_entropy": 0.3}[name] in values  # section 5's best


# ---------------------------------------------------------------------- what trials are started with
def resolved(config: dict[str, Any], values: dict[str, Any], capsys: pytest.CaptureFixture) -> dict[str, Any]:
    """The configuration that a trial's command line comes to."""
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})["args"]
    command = config["command"]
    assert command[:4] == ["${env}", "python", "-m", "lit_mbrl"]
    at = command.index("${args}")
    assert main([*command[4:at], *arguments, *command[at + 1 :], "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_value_of_every_sweep_arrives(
    file: Path, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(file.read_text())
    choices = {name: entry.get("values") or [entry["min"]] for name, entry in config["parameters"].items()}
    for i in range(max(map(len, choices.values()))):
        values = {name: given[i % len(given)] for name, given in choices.items()}
        trial = resolved(config, values, capsys)
        *callbacks, recorder = trial["trainer"]["callbacks"]
        assert recorder["class_path"] == "lit_mbrl.callbacks.WandbRun"
        for name, value in values.items():
            section, _, option = name.rpartition(".")
            found = {
                "": trial,
                "model": trial["model"]["init_args"],
                "trainer.callbacks": callbacks[-1]["init_args"] if callbacks else {},
            }[section]
            assert found[option] == (None if value == "null" else value), name


def test_a_2_has_the_values_of_the_appendix() -> None:
    parameters = yaml.safe_load((CONF / "sweeps" / "sac_svg_a2.yaml").read_text())["parameters"]
    powers = [2**i for i in range(7)]
    assert parameters["trainer.callbacks.initial"]["values"] == [1, 0, -1, -2]
    assert set(parameters["trainer.callbacks.final"]["values"]) == {"null", -5} | {-power for power in powers}
    assert parameters["trainer.callbacks.exponent"]["values"] == powers


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_are_logged_where_runs_are(file: Path) -> None:
    text = file.read_text()
    config = yaml.safe_load(text)
    assert config["project"] == "lit_mbrl" and (ROOT / config["program"]).is_file()
    assert config["metric"] == {"name": "eval/return", "goal": "maximize"}
    assert "offline" not in text
