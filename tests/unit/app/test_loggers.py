"""The table of metrics and Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lit_mbrl.app.csv_logger import CsvLogger
from lit_mbrl.app.loggers import WandbLogger, has_login
from lit_mbrl.utils.errors import TrainingError


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[CsvLogger]:
    """A new run's logger."""
    with closing(tmp_path) as csv_logger:
        yield csv_logger


@contextmanager
def closing(folder: Path, resume_at: tuple[int, int] | None = None) -> Iterator[CsvLogger]:
    """A logger that is finalized at the end."""
    logger = CsvLogger(folder, resume_at)
    yield logger
    logger.finalize("success")


# ---------------------------------------------------------------------- csv
def test_rows_are_there_at_once_and_columns_may_come_later(logger: CsvLogger, tmp_path: Path) -> None:
    logger.log_metrics({"a": 1.0}, step=10)
    assert lines(tmp_path) == ["step,a", "10,1.0"]
    logger.log_metrics({"b": 2.0}, step=20)
    logger.log_metrics({"b": 4.0, "a": 3.0}, step=30)
    assert lines(tmp_path) == ["step,a,b", "10,1.0,", "20,,2.0", "30,3.0,4.0"]


def test_rows_do_not_open_the_file_each_time(
    logger: CsvLogger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger.log_metrics({"a": 1.0}, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *args, **kwargs: pytest.fail("opened"))
        logger.log_metrics({"a": 2.0}, step=2)
    assert lines(tmp_path)[-1] == "2,2.0"


def test_logging_goes_on_after_finalize(logger: CsvLogger, tmp_path: Path) -> None:
    logger.log_metrics({"a": 1.0}, step=1)
    logger.finalize("success")
    logger.log_metrics({"a": 2.0}, step=2)
    assert lines(tmp_path) == ["step,a", "1,1.0", "2,2.0"]


def test_new_run_in_an_old_folder_starts_anew(logger: CsvLogger, tmp_path: Path) -> None:
    logger.log_metrics({"a": 1.0}, step=1)
    logger.finalize("failed")
    with closing(tmp_path) as new:
        new.log_metrics({"b": 2.0}, step=2)
    assert lines(tmp_path) == ["step,b", "2,2.0"]
    assert (tmp_path / "metrics-1.csv").read_text().splitlines() == ["step,a", "1,1.0"]


def test_a_table_that_is_removed_is_written_anew(logger: CsvLogger, tmp_path: Path) -> None:
    logger.log_metrics({"a": 1.0}, step=1)
    (tmp_path / "metrics.csv").unlink()
    with pytest.warns(match="metrics.csv has been removed while the run went on"):
        logger.log_metrics({"b": 2.0}, step=2)
    assert lines(tmp_path) == ["step,a,b", "1,1.0,", "2,,2.0"]
    (tmp_path / "metrics.csv").rename(tmp_path / "moved.csv")
    (tmp_path / "metrics.csv").write_text("mine\n")
    with pytest.warns(match="metrics.csv has been replaced"):
        logger.finalize("success")
    assert lines(tmp_path) == ["step,a,b", "1,1.0,", "2,,2.0"]
    assert (tmp_path / "metrics-1.csv").read_text() == "mine\n"


def test_a_table_that_is_emptied_gets_its_header_back(logger: CsvLogger, tmp_path: Path) -> None:
    logger.log_metrics({"a": 1.0}, step=1)
    (tmp_path / "metrics.csv").write_text("")
    with pytest.warns(match="metrics.csv has been cut"):
        logger.log_metrics({"a": 2.0}, step=2)
    assert lines(tmp_path) == ["step,a", "2,2.0"]


def test_a_run_whose_folder_is_gone_stops(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with closing(tmp_path / "run") as gone:
        gone.log_metrics({"a": 1.0}, step=1)
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(TrainingError, match="run has been removed or moved"):
            gone.log_metrics({"a": 2.0}, step=2)
        gone.finalize("failed")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "kept", "what"),
    [
        (b"1,x\n2,0.5\n", ["2,0.5"], "a row"),
        (b"\x00\xff\xfe,1\n,\n2,0.5\n", ["2,0.5"], "2 rows"),
        (b"1,2,3\n1.5,1\n-1,1\n2,0.5\n", ["2,0.5"], "3 rows"),
    ],
)
def test_damaged_rows_are_left_out_and_kept_aside(damage: bytes, kept: list[str], what: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"step,a\n" + damage)
    with (
        pytest.warns(match=f"left out {what} that cannot be read; metrics-1.csv has all as it was"),
        closing(tmp_path, resume_at=(5, 5)) as resumed,
    ):
        resumed.log_metrics({"a": 1.0}, step=6)
    assert lines(tmp_path) == ["step,a", *kept, "6,1.0"]
    assert (tmp_path / "metrics-1.csv").read_bytes() == b"step,a\n" + damage


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\x00\n", b"step,step\n1,1\n", b'step,"a\n1,1\n'])
def test_a_table_of_something_else_is_kept_aside(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.warns(match="left out .* that cannot be read"), closing(tmp_path, resume_at=(5, 5)) as resumed:
        resumed.log_metrics({"a": 1.0}, step=6)
    assert lines(tmp_path) == ["step,a", "6,1.0"]
    assert (tmp_path / "metrics-1.csv").read_bytes() == content


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("step,a\n1,0.5\n")
    for name in ("metrics.csv", "metrics.csv.tmp"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    with closing(tmp_path / "run", resume_at=(5, 5)) as resumed:
        resumed.log_metrics({"a": 1.0}, step=6)
    assert lines(tmp_path / "run") == ["step,a", "1,0.5", "6,1.0"]
    assert (tmp_path / "mine").read_text() == "step,a\n1,0.5\n"


def test_resumed_run_drops_what_it_takes_again(logger: CsvLogger, tmp_path: Path) -> None:
    # With two rounds per environment step the step alone does not say what came after the checkpoint.
    for step, rounds in [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5)]:
        logger.log_metrics({"time/train_steps": rounds, "a": 0.5}, step=step)
    logger.finalize("failed")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,3")  # half a line, as a kill leaves it
    with closing(tmp_path, resume_at=(2, 3)) as resumed:
        resumed.log_metrics({"time/train_steps": 4, "a": 0.25}, step=2)
    assert lines(tmp_path) == ["step,time/train_steps,a", "1,1.0,0.5", "1,2.0,0.5", "2,3.0,0.5", "2,4.0,0.25"]


def test_resume_without_a_table_starts_one(tmp_path: Path) -> None:
    with closing(tmp_path, resume_at=(5, 5)) as resumed:
        resumed.log_metrics({"a": 1.0}, step=6)
    assert lines(tmp_path) == ["step,a", "6,1.0"]


# ---------------------------------------------------------------------- W&B
@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_variable_means_online(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_login()
    monkeypatch.setenv(name, "x")
    assert has_login()


@pytest.mark.parametrize(("host", "online"), [("api.wandb.ai", True), ("example.org", False)])
def test_netrc_means_online(host: str, online: bool, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'0' * 40}\n")
    assert has_login() is online


def test_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine example.org login user password {'0' * 40}\n")
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")
    assert has_login()


def test_offline_run_lies_in_the_run_folder_and_keeps_its_id(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):  # a run, and its resumed copy
        logger = WandbLogger()
        logger.use_folder(tmp_path / "run")
        run = logger.experiment
        assert run.settings.mode == "offline" and run.offline
        ids.append(run.id)
        logger.log_hyperparams({"model.horizon": 3})
        assert dict(run.config) == {"model.horizon": 3}
        logger.log_metrics({"eval/return": 1.0}, step=20)
        logger.log_metrics({"eval/return": 2.0}, step=10)  # an earlier step is nothing to complain about
        assert logger.close() is None
    assert ids[0] == ids[1] == (tmp_path / "run" / "wandb" / "id").read_text()
    assert list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{ids[0]}/*.wandb"))


def test_metrics_are_plotted_against_environment_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged, defined = [], []

    class Run:
        offline, disabled = True, False

        def log(self, metrics: dict) -> None:
            logged.append(metrics)

        def define_metric(self, name: str, step_metric: str | None = None, **_: object) -> None:
            defined.append((name, step_metric))

    monkeypatch.setattr("wandb.init", lambda **_: Run())
    logger = WandbLogger()
    logger.use_folder(tmp_path)
    logger.log_metrics({"a": 1.0}, step=7)
    assert logged == [{"a": 1.0, "env_steps": 7}]
    assert defined[-2:] == [("env_steps", None), ("*", "env_steps")]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"mode": "offline", "project": "lit_mbrl"}),
        ({"WANDB_API_KEY": "0" * 40}, {"mode": None}),
        ({"WANDB_MODE": "online"}, {"mode": None}),
        ({"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "chosen"}, {"mode": None, "id": "chosen"}),
        ({"WANDB_PROJECT": "mine"}, {"project": "mine"}),
    ],
)
def test_environment_variables_decide(
    variables: dict[str, str], expected: dict[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given: dict = {}

    class Run:
        offline, disabled = True, False

        def define_metric(self, *args: object, **kwargs: object) -> None: ...

    monkeypatch.setattr("wandb.init", lambda **options: given.update(options) or Run())
    logger = WandbLogger()
    logger.use_folder(tmp_path)
    assert logger.experiment is not None
    assert {name: given.get(name) for name in expected} == expected


def test_sweep_keeps_its_own_values(tmp_path: Path) -> None:
    logger = WandbLogger()
    logger.use_folder(tmp_path)
    logger.experiment.config.update({"model.horizon": 5})
    logger.log_hyperparams({"model.horizon": 3, "model.gamma": 0.99})
    assert dict(logger.experiment.config) == {"model.horizon": 5, "model.gamma": 0.99}
    logger.close()


@pytest.mark.parametrize(("given", "names"), [(None, ["a/b/first", "a/b/first-2"]), ("mine", ["mine", "mine"])])
def test_a_run_is_named_by_the_folder_that_it_ends_up_with(tmp_path: Path, given: str | None, names: list[str]) -> None:
    logger = WandbLogger(name=given)
    for folder, name in zip(("first", "first-2"), names, strict=True):
        logger.use_folder(tmp_path / "a" / "b" / folder)
        assert logger._wandb_init["name"] == name
