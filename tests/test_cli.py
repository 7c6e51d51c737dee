"""The command line: what users type, and what they read when they mistype it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_mbrl.arguments import resume_command
from lit_mbrl.cli import CONF, algorithms, main
from lit_mbrl.run_folder import new_folder, run_family
from tests.command_line import NO_WANDB, SAC, TINY, load, rows, run_folders, same

CONFIGS = sorted(path for path in CONF.glob("*.yaml") if path.stem != "base")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that `conf/` is the package's and `runs/` is ours."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main([*SAC, f"--trainer.default_root_dir={folder}"]) == 0
    return folder


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
    assert last.endswith("--data.eval_episodes=1 --data.env.kwargs.render_mode=human")
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
    assert main(["fit", "--config", str(config), *TINY, NO_WANDB]) == 0
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
    family = run_family(["conf/sac.yaml"], "SAC", "dmc/walker-walk", 3)
    names = []
    for _ in range(3):
        names.append(new_folder(family))
        names[-1].mkdir(parents=True)
    stem = "runs/sac/dmc-walker-walk/seed3-20200101-000000"
    assert [str(name) for name in names] == [stem, f"{stem}-2", f"{stem}-3"]


def test_launched_processes_share_the_folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = run_family([], "SACSVG", "Pendulum-v1", 0)
    assert family == Path("runs/sacsvg/Pendulum-v1/seed0")
    folder = new_folder(family)
    folder.mkdir(parents=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert new_folder(family) == folder


# ---------------------------------------------------------------------- resume
def test_resumed_run_is_the_whole_run(work: Path, finished: Path, capfd: pytest.CaptureFixture) -> None:
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0
    assert main([*SAC, "--ckpt_path=last"]) == 0
    (folder,) = run_folders(work)
    assert f"run folder: {folder.relative_to(work)}, resumed at 40 env steps" in capfd.readouterr().out
    assert rows(folder) == rows(finished)
    ours, theirs = (load(path / "checkpoints" / "last.ckpt") for path in (folder, finished))
    assert same(ours["state_dict"], theirs["state_dict"]) and same(ours["OffPolicy"], theirs["OffPolicy"])


def test_rows_after_the_checkpoint_are_taken_again(work: Path, finished: Path) -> None:
    assert main([*SAC, "--trainer.max_epochs=1"]) == 0
    (folder,) = run_folders(work)
    table = (folder / "metrics.csv").read_text()
    with (folder / "metrics.csv").open("a") as file:  # as if the run had been killed in its second epoch
        file.write(table.splitlines()[-1].replace("40,", "50,", 1) + "\n50,1")
    assert main([*SAC, "--ckpt_path=last"]) == 0
    assert rows(folder) == rows(finished)


def test_resume_by_path_takes_config_and_folder_from_the_run(work: Path, finished: Path) -> None:
    shutil.copytree(finished, work / "copy")
    arguments = ["fit", "--ckpt_path", "copy/checkpoints/last.ckpt", "--data.total_frames=80"]
    assert main([*arguments, "--trainer.default_root_dir=copy"]) == 0
    assert load(work / "copy" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80
    assert rows(work / "copy")[: len(rows(finished))] == rows(finished)


def test_resume_into_another_folder_leaves_the_old_one(work: Path, finished: Path) -> None:
    before = (finished / "metrics.csv").read_bytes()
    last = finished / "checkpoints" / "last.ckpt"
    assert main([*SAC, f"--ckpt_path={last}", "--data.total_frames=80", "--trainer.default_root_dir=fork"]) == 0
    assert (finished / "metrics.csv").read_bytes() == before
    assert load(work / "fork" / "checkpoints" / "last.ckpt")["lit_mbrl"]["env_steps"] == 80


def test_last_is_the_run_that_saved_last(work: Path) -> None:
    for name in ("seed0-1", "seed0-2", "seed0-3", "seed1-4"):
        (work / "runs/sac/Pendulum-v1" / name / "checkpoints").mkdir(parents=True)
    assert main([*SAC, "--trainer.default_root_dir=runs/sac/Pendulum-v1/seed0-2", "--trainer.max_epochs=1"]) == 0
    assert main([*SAC, "--ckpt_path=last"]) == 0
    assert load(work / "runs/sac/Pendulum-v1/seed0-2/checkpoints/last.ckpt")["lit_mbrl"]["env_steps"] == 60


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["fit", "--config", "a b.yaml"], "python -m lit_mbrl fit --config 'a b.yaml' --ckpt_path last"),
        (["fit", "--x=1", "--ckpt_path", "old"], "python -m lit_mbrl fit --x=1 --ckpt_path run/checkpoints/last.ckpt"),
        (["fit", "--ckpt_path=old"], "python -m lit_mbrl fit --ckpt_path run/checkpoints/last.ckpt"),
    ],
)
def test_resume_command(given: list[str], command: str) -> None:
    assert resume_command(given, Path("run")) == command


# ---------------------------------------------------------------------- config
def printed_config(capfd: pytest.CaptureFixture, *arguments: str) -> dict[str, Any]:
    assert main(["fit", *arguments, "--print_config"]) == 0
    return yaml.safe_load(capfd.readouterr().out)


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
    more = ["--trainer.callbacks+=callbacks.EntropyAnnealing", "--trainer.callbacks.initial=0"]
    more += ["--trainer.callbacks.final=-1", "--trainer.callbacks.schedule_steps=10"]
    config = printed_config(capfd, "--config", "conf/sac.yaml", *more)
    names = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert names == ["callbacks.SoftTargetUpdate", "callbacks.EntropyAnnealing"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--help"], "validate"),
        (["fit", "--help"], "--checkpoint.every_epochs"),
        (["fit", "--model.help", "SACSVG"], "--model.horizon"),
    ],
)
def test_help(arguments: list[str], text: str, capfd: pytest.CaptureFixture) -> None:
    assert main(arguments) == 0
    assert text in capfd.readouterr().out


def test_list_names_every_algorithm_and_config_without_torch(work: Path) -> None:
    code = "import sys; from lit_mbrl.cli import main; main(['list']); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CONF.parent)!r}); {code}"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for config in CONFIGS:
        assert f"conf/{config.name}" in table
    for name, paper in algorithms():
        assert re.search(rf"^{name} +{re.escape(paper)} +conf/", table, re.M), name


# ---------------------------------------------------------------------- mistakes
FILES = {
    "broken.yaml": "a: [1\n",
    "scalar.yaml": "3\n",
    "dangling.yaml": "model:\n  class_path: SAC\n  init_args:\n    gamma: ${nope.x}\n",
    "section.yaml": "modl:\n  class_path: SAC\n",
    "field.yaml": "data:\n  init_args:\n    env:\n      nam: x\n",
    "parameter.yaml": "model:\n  class_path: SAC\n  init_args:\n    gama: 3\n",
    "callback.yaml": "trainer:\n  callbacks:\n  - class_path: callbacks.SoftTargetUpdat\n",
    "tau.yaml": "trainer:\n  callbacks:\n  - class_path: callbacks.SoftTargetUpdate\n    init_args: {tua: 3}\n",
    "foreign.ckpt": "not a checkpoint",
}
MISTAKES = [
    # unknown options
    ("--bogus=1", "--bogus=1: no such option"),
    ("--trainer.max_epoch=9", "--trainer.max_epoch=9: no such option (did you mean '--trainer.max_epochs'?)"),
    ("--model.horizon=3", "--model.horizon=3: SAC has no such option"),
    ("--model.gama=0.9", "--model.gama=0.9: SAC has no such option (did you mean '--model.gamma'?)"),
    (
        "--data.env.num_env=2",
        "--data.env.num_env=2: OffPolicy has no such option (did you mean '--data.env.num_envs'?)",
    ),
    (
        "--trainer.callbacks.tua=3",
        "--trainer.callbacks.tua=3: SoftTargetUpdate has no such option (did you mean '--trainer.callbacks.tau'?)",
    ),
    ("--progress.refresh=1", "--progress.refresh=1: no such option (did you mean '--progress.refresh_seconds'?)"),
    ("extra", "extra: expected an option, as --name=value"),
    ("--model.critic_lr", "--model.critic_lr: expected a value"),
    # wrong types and values
    ("--model.gamma=abc", "--model.gamma=abc: expected a number"),
    ("--model.gamma=2", "--model.gamma=2.0: expected a number between 0 and 1"),
    ("--model.hidden_sizes=[a]", "--model.hidden_sizes=['a']: expected a list (an integer each) or null"),
    ("--model.log_std_squash=foo", "--model.log_std_squash=foo: expected tanh or clamp"),
    ("--model.target_entropy=foo", "--model.target_entropy=foo: expected a number or auto"),
    ("--data.total_frames=abc", "--data.total_frames=abc: expected an integer"),
    ("--data.env.num_envs=abc", "--data.env.num_envs=abc: expected an integer"),
    ("--data.env.num_envs=-1", "--data.env.num_envs=-1: expected an integer >= 1"),
    ("--data.env.max_episode_steps=x", "--data.env.max_episode_steps=x: expected an integer or null"),
    ("--data.env=3", "--data.env=3: expected a mapping, or its entries as --data.env.<name>=<value>"),
    ("--trainer.callbacks.tau=3", "--trainer.callbacks.tau=3.0: expected a number between 0 and 1"),
    ("--trainer.max_epochs=abc", "--trainer.max_epochs=abc: expected an integer or null"),
    ("--checkpoint.every_epochs=0", "--checkpoint.every_epochs=0: expected an integer > 0"),
    ("--seed_everything=-3", "--seed_everything=-3: expected a seed (-3 is not in bounds"),
    # unknown classes
    ("--model=SACC", "--model=SACC: expected the name of a class (did you mean 'SAC'?)"),
    ("--model=callbacks.SoftTargetUpdate", "--model=callbacks.SoftTargetUpdate: expected the name of a class"),
    ("--data=foo.Bar", "--data=foo.Bar: expected the name of a class"),
    (
        "--trainer.callbacks+=callbacks.SoftTargetUpdat",
        "--trainer.callbacks=callbacks.SoftTargetUpdat: expected the name of a class "
        "(did you mean 'callbacks.SoftTargetUpdate'?)",
    ),
    # the trainer
    ("--trainer.accelerator=foo", "--trainer.accelerator=foo: You selected an invalid accelerator name"),
    ("--trainer.strategy=foo", "--trainer.strategy=foo: You selected an invalid strategy name"),
    ("--trainer.devices=0", "--trainer.devices=0: `Trainer(devices="),
    ("--trainer.precision=foo", "--trainer.precision=foo: expected 64, 32, 16, "),
    ("--trainer.max_epochs=-7", "--trainer.max_epochs=-7: `max_epochs` must be a non-negative integer or -1."),
    (
        "--trainer.callbacks=null",
        "--trainer.callbacks=None: expected a list with callbacks.SoftTargetUpdate, since SAC has target networks",
    ),
    (
        "--trainer.default_root_dir=broken.yaml/x",
        "--trainer.default_root_dir=broken.yaml/x: expected a folder that can",
    ),
    # environments
    ("--data.env.name=Pendulum-v2", "--data.env.name=Pendulum-v2: expected a Gymnasium id"),
    (
        "--data.env.name=CartPole-v1",
        "--data.env.name=CartPole-v1: expected an environment with continuous actions, which SAC needs",
    ),
    ("--data.env.name=nowhere:Bar-v0", "--data.env.name=nowhere:Bar-v0: expected an installed environment (No module"),
    ("--data.env.kwargs.foo=3", "--data.env.kwargs={'foo': 3}: expected arguments that Pendulum-v1 takes"),
    # checkpoints
    ("--ckpt_path=nope.ckpt", "--ckpt_path=nope.ckpt: expected a checkpoint, but there is no such file"),
    (
        "--ckpt_path=foreign.ckpt",
        "--ckpt_path=foreign.ckpt: expected a checkpoint, but this file is damaged or something",
    ),
    (
        "--ckpt_path=last",
        "--ckpt_path=last: expected a run to go on with, but runs/sac/Pendulum-v1/seed0-* has no checkpoints/last.ckpt",
    ),
    # config files
    ("--config=nope.yaml", "--config=nope.yaml: expected a config file, but there is no such file"),
    ("--config=conf/sac_sgv.yaml", "(did you mean 'conf/sac_svg.yaml'?)"),
    (
        "--config=broken.yaml",
        "--config=broken.yaml: expected YAML, but expected ',' or ']', but got '<stream end>' (",
    ),
    ("--config=scalar.yaml", "--config=scalar.yaml: expected YAML with entries as model, data and trainer"),
    (
        "--config=dangling.yaml",
        "--model.gamma=${nope.x}: expected the name of a config entry, but there is no nope.x",
    ),
    ("--config=section.yaml", "--modl.class_path: no such option (did you mean '--model'?)"),
    ("--config=field.yaml", "--data.env.nam: OffPolicy has no such option (did you mean '--data.env.name'?)"),
    ("--config=parameter.yaml", "--model.gama: SAC has no such option (did you mean '--model.gamma'?)"),
    ("--config=callback.yaml", "--trainer.callbacks=callbacks.SoftTargetUpdat: expected the name of a class (did you"),
    ("--config=tau.yaml", "--trainer.callbacks.tua: SoftTargetUpdate has no such option"),
]


@pytest.fixture
def fails(work: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that has to fail with one line on standard error, leaving nothing behind."""
    for name, content in FILES.items():
        (work / name).write_text(content)

    def run(*arguments: str) -> str:
        before = sorted(work.rglob("*"))
        assert main(list(arguments)) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1 and err.startswith("error: "), err
        assert sorted(work.rglob("*")) == before
        return err.removeprefix("error: ").rstrip("\n")

    return run


@pytest.mark.parametrize(("argument", "line"), MISTAKES, ids=[argument for argument, _ in MISTAKES])
def test_a_mistake_is_one_line(argument: str, line: str, fails: Callable[..., str]) -> None:
    assert line in fails(*SAC, argument)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(fails: Callable[..., str]) -> None:
    assert fails(*SAC, "--trainer.accelerator=gpu") == "--trainer.accelerator=gpu: No supported gpu backend found!"


def test_negative_horizon(fails: Callable[..., str]) -> None:
    arguments = ["fit", "--config", "conf/sac_svg.yaml", *TINY, "--model.horizon=-1"]
    assert fails(*arguments) == "--model.horizon=-1: expected an integer >= 0"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no command: expected one of fit, validate, evaluate, video, plot, list"),
        (["fut"], "fut: expected one of fit, validate, evaluate, video, plot, list (did you mean 'fit'?)"),
        (["fit"], "--config: expected a config file, as conf/sac_svg.yaml (`python -m lit_mbrl list` shows them)"),
        (["validate", "--config", "conf/sac.yaml"], "--ckpt_path=None: expected the checkpoint to evaluate"),
        (["validate", "--ckpt_path", "x"], "--ckpt_path=x: expected a checkpoint, but there is no such file"),
    ],
)
def test_a_command_that_lacks_something(arguments: list[str], line: str, fails: Callable[..., str]) -> None:
    assert fails(*arguments) == line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model.hidden_sizes=[9,8]"], "actor.net.0.bias to be (9,) as configured, not (8,)"),
        (["--model.learn_alpha=false"], "a checkpoint with 2 optimisers as configured, not 3"),
        (["--model=TD3", "--model.hidden_sizes=[8,8]"], "a checkpoint of TD3"),
    ],
)
def test_checkpoint_of_another_run(
    arguments: list[str], reason: str, finished: Path, fails: Callable[..., str]
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    line = fails(*SAC, *arguments, f"--ckpt_path={last}")
    assert line == f"--ckpt_path={last} (SAC on Pendulum-v1): expected {reason}"


def test_checkpoint_of_another_program(work: Path, fails: Callable[..., str]) -> None:
    torch.save({"state_dict": {}}, work / "other.ckpt")
    line = "--ckpt_path=other.ckpt: expected a checkpoint of lit_mbrl, but this is another program's"
    assert fails(*SAC, "--ckpt_path=other.ckpt") == line


def test_torn_checkpoint(work: Path, finished: Path, fails: Callable[..., str]) -> None:
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (work / "torn.ckpt").write_bytes(whole[: len(whole) // 2])
    line = "--ckpt_path=torn.ckpt: expected a checkpoint, but this file is damaged or something else"
    assert fails(*SAC, "--ckpt_path=torn.ckpt") == line


# ---------------------------------------------------------------------- bugs
@pytest.mark.parametrize("error", [AttributeError, ValueError])
@pytest.mark.parametrize(
    "where",
    [
        "lit_mbrl.algorithms.sac.positive_sizes",  # while the algorithm is made
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
